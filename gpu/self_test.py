"""Tests of what the bundle's scripts compute, without torch, a GPU or the library."""

import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import bench
import find_libraries
import nccl_version
import record
import sampling
import shapes
from shapes import MLLAMA, T5, WHISPER, Cell


class Sampling(unittest.TestCase):
    def test_each_round_has_every_name_once(self):
        order = sampling.interleaved(["a", "b", "c"], 50)
        rounds = [tuple(order[at : at + 3]) for at in range(0, len(order), 3)]
        self.assertTrue(all(sorted(one) == ["a", "b", "c"] for one in rounds))
        self.assertEqual(len(set(rounds)), 6)

    def test_the_interval_is_the_middle_95_percent(self):
        self.assertEqual(sampling.interval(list(range(1000, 0, -1))), (26, 975))

    def test_the_interval_of_equal_samples_is_a_point(self):
        self.assertEqual(sampling.summary([2.0] * 9), {"median": 2.0, "low": 2.0, "high": 2.0, "samples": 9})

    def test_the_interval_holds_the_median_and_leaves_outliers_out(self):
        found = sampling.summary([1.0 + at / 100 for at in range(49)] + [1000.0])
        self.assertTrue(1.0 < found["low"] < found["median"] < found["high"] < 2.0)

    def test_a_speedup_of_two_is_two(self):
        found = sampling.speedup([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
        self.assertEqual(found["median"], 2.0)
        self.assertEqual((found["low"], found["high"]), (2.0, 2.0))


class Shapes(unittest.TestCase):
    def test_columns_of_the_models(self):
        columns = [(Cell(model, ranks).query_columns, Cell(model, ranks).key_columns) for model, ranks in shapes.CELLS]
        self.assertEqual(columns, [(1280, 1280), (320, 320), (4096, 1024), (512, 128), (4096, 4096), (512, 512)])

    def test_more_ranks_than_key_value_heads_share_them(self):
        self.assertEqual(Cell(MLLAMA, 16).key_columns, 128)

    def test_decode_needs_a_third_of_what_the_workaround_does(self):
        cell = Cell(WHISPER, 1)
        self.assertEqual(cell.workaround_multiply_adds(7, 0), 3 * cell.multiply_adds(7, 0))
        self.assertEqual(cell.multiply_adds(1, 0), 1280 * 1280)
        self.assertEqual(cell.multiply_adds(0, 1500), 2 * 1500 * 1280 * 1280)

    def test_bytes_are_weights_and_rows_once(self):
        cell = Cell(WHISPER, 4)
        self.assertEqual(cell.necessary_bytes(1, 0), 2 * (1280 * 320 + 320 + 1280))
        both = cell.necessary_bytes(2, 0) + cell.necessary_bytes(0, 3)
        self.assertEqual(cell.necessary_bytes(2, 3), both)

    def test_cold_sets_are_more_than_twice_the_cache(self):
        cell = Cell(WHISPER, 4)
        sets = cell.cold_sets(cell.query_columns, 50_000_000)
        self.assertGreaterEqual(sets * 2 * 320 * 1280, 2 * 50_000_000)
        self.assertLess((sets - 1) * 2 * 320 * 1280, 2 * 50_000_000)
        self.assertEqual(Cell(T5, 1).cold_sets(3 * 4096, 1), 2)

    def test_the_floor_is_the_slower_of_arithmetic_and_memory(self):
        self.assertEqual(shapes.floor_seconds(10, 3, 5.0, 1.0), 3.0)
        self.assertEqual(shapes.floor_seconds(10, 1, 5.0, 1.0), 2.0)


class Replays:
    """A contender whose replays take this long."""

    def __init__(self, seconds: float):
        self.seconds = lambda: seconds


class Workbench:
    """Two layers; with `broken` its contenders cannot be made."""

    def __init__(self, broken: bool = False):
        self.cell, self.broken = Cell(WHISPER, 1), broken

    def contenders(self, **_: object) -> tuple[dict, int]:
        if self.broken:
            raise RuntimeError("no memory")
        return {"xqkv": Replays(2.0), "workaround": Replays(6.0)}, 2


class Cases(unittest.TestCase):
    CASE = {"decoder_rows": 4, "encoder_rows": 0, "fill": False}
    RATES = {"multiply_adds_per_second": 1280 * 1280 * 8.0, "copy_bytes_per_second": 1e30}

    def test_a_case_is_told_per_layer_beside_the_floor(self):
        with mock.patch.object(bench, "ROUNDS", 5):
            seconds = bench.run_case(Workbench(), self.CASE, self.RATES)["seconds"]
        self.assertEqual((seconds["xqkv"]["median"], seconds["workaround"]["median"]), (1.0, 3.0))
        self.assertEqual(seconds["workaround"]["xqkv_speedup"]["median"], 3.0)
        self.assertEqual(seconds["xqkv"]["floor_share"], 0.5)

    def test_a_case_that_cannot_run_says_why(self):
        self.assertEqual(bench.run_case(Workbench(broken=True), self.CASE, self.RATES)["error"], "RuntimeError: no memory")

    def test_every_cell_has_decodes_prompts_and_fills(self):
        shapes_of = [(case["decoder_rows"], case["encoder_rows"]) for case in bench.cases(Cell(MLLAMA, 8))]
        expected = [(rows, 0) for rows in shapes.DECODE_ROWS] + [(4, 1601), (4, 6404), (0, 1601), (0, 6404)]
        self.assertEqual(shapes_of, expected)


class Libraries(unittest.TestCase):
    def assignments(self, *files: str) -> list[str]:
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, clear=True):
            for name in files:
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            lines = find_libraries.assignments([folder])
            return [line.replace(str(Path(folder).resolve()) + "/", "") for line in lines]

    def test_nothing_is_said_of_what_is_not_there(self):
        self.assertEqual(self.assignments("nvidia/cublas/lib/libcublas.so.12"), [])

    def test_the_layouts_of_cuda_12_and_13(self):
        for folder in ("nvidia/cublas/lib", "nvidia/cu13/lib", "torch/lib"):
            found = self.assignments(f"{folder}/libcublasLt.so.13")
            self.assertEqual(found, [f"export XQKV_CUBLASLT_LIBRARY={folder}/libcublasLt.so.13"])

    def test_torchs_own_is_first_and_the_newest_of_a_folder(self):
        found = self.assignments("torch/lib/libnccl.so.9", "torch/lib/libnccl.so.10", "nvidia/nccl/lib/libnccl.so.99")
        self.assertEqual(found, ["export XQKV_NCCL_LIBRARY=torch/lib/libnccl.so.10"])

    def test_a_variable_that_is_set_stays(self):
        with mock.patch.dict(os.environ, dict.fromkeys(find_libraries.VARIABLES, "mine")):
            self.assertEqual(find_libraries.assignments([""]), [])


class Records(unittest.TestCase):
    def made(self, steps: str) -> dict:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "steps.tsv").write_text(steps)
            return record.record(Path(folder), True)

    def shown(self, steps: str) -> bool:
        with mock.patch("builtins.print"):
            return record.show(self.made(steps))

    def test_a_simulated_run_names_no_gpu(self):
        made = self.made("info\tpassed\t1\n")
        self.assertEqual((made["gpu"], made["cublaslt"], made["torch"]), ([], None, None))
        self.assertEqual(made["steps"], [{"name": "info", "verdict": "passed", "seconds": 1}])

    def test_two_ranks_share_a_gpu_from_nccl_2_30_on(self):
        self.assertEqual(nccl_version.skipped(23000), "")
        self.assertEqual(nccl_version.skipped(22907), "SKIPPED: NCCL 2.29 is older than 2.30")
        self.assertEqual(nccl_version.skipped(0), "SKIPPED: no NCCL")

    def test_an_nccl_that_is_not_there_has_no_version(self):
        with mock.patch.dict(os.environ, XQKV_NCCL_LIBRARY="/nowhere/libnccl.so.2"):
            self.assertEqual(nccl_version.version(), 0)

    def test_any_other_verdict_fails_and_so_does_a_run_of_nothing(self):
        self.assertTrue(self.shown("a\tpassed\t1\nb\tnot there\t0\nc\tSKIPPED: no NCCL\t0\n"))
        for verdict in ("FAILED (1)", "TIME LIMIT", "NO TIME"):
            self.assertFalse(self.shown(f"a\tpassed\t1\nb\t{verdict}\t0\n"))
        self.assertFalse(self.shown(""))
