//! Whatever one rank has otherwise than the others is found, named with its ranks, and told to all
//! of them: each word of each agreement is perturbed in turn.

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "common/case.rs"]
mod case;
#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../src/bin/xqkv/reference.rs"]
mod reference;
#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../src/bin/xqkv/sockets.rs"]
mod sockets;

use case::{Case, host, square, target};
use sockets::Mesh;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use xqkv::backend::{Backend, InstructionSet, Lane, Numerics};
use xqkv::comm::{Collectives, Comm, Failure, Options, Progress, Seat};
use xqkv::dtype::Dtype;
use xqkv::error::{Error, Status};
use xqkv::projection::{
    Call, Collective, DecoderSide, EncoderSide, Membership, Phase, Projection, Sequence,
};
use xqkv::shard::{Range, Shard, Split};
use xqkv::spec::{Norm, Part, Spec};
use xqkv::view::{Indices, Rows, Shape, Strides, View};

const RANKS: usize = 3;
const ODD: usize = 1;
const WIDTH: i64 = 16;

fn options() -> Options {
    Options { deadline: Duration::from_secs(20), checks_calls: false, has_watchdog: false }
}

fn spec() -> Spec {
    let norm = Some(Norm { epsilon: 1e-5, rounds_first: false });
    Spec { layer_count: 3, norm, ..square(WIDTH, 6, 8, Dtype::F32) }
}

/// What a rank makes its projection of.
struct Making {
    spec: Spec,
    layers: Range,
    numerics: Numerics,
    shares_replicas: bool,
    backend: Arc<dyn Backend>,
}

impl Making {
    fn new() -> Self {
        Self {
            spec: spec(),
            layers: Range { begin: 0, count: 2 },
            numerics: Numerics::default(),
            shares_replicas: false,
            backend: host(1, None).unwrap(),
        }
    }

    fn make(self, rank: usize, comm: Comm) -> Result<Projection, Error> {
        let heads = Range { begin: 2 * rank as i64, count: 2 };
        let shard = Shard { query_heads: heads, key_value_heads: heads, layers: self.layers };
        let membership =
            Membership { comm: Some(Arc::new(comm)), shares_replicas: self.shares_replicas };
        Projection::new(self.backend, self.spec, shard, self.numerics, membership)
    }
}

/// Lets all ranks act at the same time.
fn on_all<T: Send>(comms: Vec<Comm>, act: impl Fn(usize, Comm) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let act = &act;
        let start = |(rank, comm)| scope.spawn(move || act(rank, comm));
        let threads: Vec<_> = comms.into_iter().enumerate().map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// All ranks were told of the field, and that it is rank 1 that differs.
fn assert_named(name: &str, answers: Vec<Result<(), Error>>) {
    assert_eq!(answers.len(), RANKS);
    for answer in answers {
        let error = answer.expect_err(name);
        assert_eq!(error.status, Status::Mismatch, "{name}: {error}");
        let message = &error.message;
        assert!(message.contains(&format!("{name} is ")), "{name}: {message}");
        assert!(message.contains("on ranks 0, 2") && message.contains("on rank 1"), "{message}");
    }
}

type Change = fn(&mut Making);

const MAKING: [(&str, Change); 24] = [
    ("layer_count", |making| making.spec.layer_count = 4),
    ("decoder_width", |making| making.spec.decoder_width = 32),
    ("encoder_width", |making| making.spec.encoder_width = 32),
    ("query_heads", |making| making.spec.query_heads = 12),
    ("key_value_heads", |making| making.spec.key_value_heads = 12),
    ("head_width", |making| making.spec.head_width = 4),
    ("value_head_width", |making| making.spec.value_head_width = 4),
    ("weight_dtype", |making| making.spec.weight_dtype = Dtype::Bf16.into()),
    ("query_bias", |making| making.spec.bias[Part::Query] ^= true),
    ("key_bias", |making| making.spec.bias[Part::Key] ^= true),
    ("value_bias", |making| making.spec.bias[Part::Value] ^= true),
    ("query_scale (its bits)", |making| making.spec.scale[Part::Query] = 0.5),
    ("key_scale (its bits)", |making| making.spec.scale[Part::Key] = 0.5),
    ("value_scale (its bits)", |making| making.spec.scale[Part::Value] = 0.5),
    ("norm", |making| making.spec.norm = None),
    ("norm_epsilon (its bits)", |making| making.spec.norm.as_mut().unwrap().epsilon = 1e-6),
    ("norm_rounds_first", |making| making.spec.norm.as_mut().unwrap().rounds_first = true),
    ("layer_begin", |making| making.layers.begin = 1),
    ("the shard's layer_count", |making| making.layers.count = 3),
    ("XQKV_PROJECTION_FLAG_SHARE_REPLICAS", |making| making.shares_replicas = true),
    ("XQKV_PROJECTION_FLAG_TENSOR_FLOAT", |making| making.numerics.tensor_float = true),
    ("XQKV_PROJECTION_FLAG_BATCH_INVARIANT", |making| making.numerics.batch_invariant = true),
    ("XQKV_COMM_FLAG_CHECK_CALLS", |_| ()),
    ("the instruction set's class", |making| {
        making.backend = host(1, Some(InstructionSet::Portable)).unwrap();
    }),
];

#[test]
fn every_word_of_a_projection_that_one_rank_has_otherwise_is_named_on_all() {
    for (name, change) in MAKING {
        if name == "the instruction set's class" && host(1, Some(InstructionSet::Avx2)).is_none() {
            continue;
        }
        let mut comms = Comm::threads(RANKS, options());
        if name == "XQKV_COMM_FLAG_CHECK_CALLS" {
            comms = comms_of_which_one_checks();
        }
        let answers = on_all(comms, |rank, comm| {
            let mut making = Making::new();
            if rank == ODD {
                change(&mut making);
            }
            making.make(rank, comm).map(drop)
        });
        assert_named(name, answers);
    }
}

/// Threads' communicators have the same options, so these are over sockets.
fn comms_of_which_one_checks() -> Vec<Comm> {
    let meshes: Vec<&'static Mesh> =
        Mesh::all(RANKS).unwrap().into_iter().map(|mesh| &*Box::leak(Box::new(mesh))).collect();
    let comm = |(rank, mesh): (usize, &'static Mesh)| {
        let seat = Seat { rank, rank_count: RANKS };
        let options = Options { checks_calls: rank == ODD, ..options() };
        Comm::collectives(seat, over(mesh), options)
    };
    meshes.into_iter().enumerate().map(comm).collect()
}

/// The collectives that an agreement takes.
fn over(mesh: &'static Mesh) -> Collectives {
    Collectives {
        all_gather: Box::new(move |buffer, bytes, _| {
            mesh.gather(buffer, bytes);
            Ok(())
        }),
        broadcast: Box::new(|_, _, _, _| unreachable!()),
        exchange: None,
        poll: Some(Box::new(move || {
            let waits_for = mesh
                .progress()
                .map_err(|lost| Failure::Lost(vec![lost.0], "its socket ended".into()))?;
            Ok(waits_for.map_or(Progress::Done, |rank| Progress::Waiting(Some(rank))))
        })),
        abort: None,
    }
}

/// A call, and what about it is odd.
struct Calling {
    layer: i64,
    layer_count: i64,
    decoder_rows: i64,
    gathers_query: bool,
    gathers_key_value: bool,
    rank_rows: [i64; RANKS],
    rows: Dtype,
    chunk_rows: i64,
    query: Dtype,
    key: Dtype,
    value: Dtype,
    /// Whether decoder rows come by a list that names a row that is not there.
    lists_rows: bool,
    /// Whether K goes where this rank's encoder rows are.
    overlaps: bool,
}

/// The third is not among the four rows of its buffer.
static LIST: [i64; 4] = [0, 1, 99, 2];

impl Calling {
    fn new() -> Self {
        Self {
            layer: 0,
            layer_count: 1,
            decoder_rows: 4,
            gathers_query: true,
            gathers_key_value: true,
            rank_rows: [2, 3, 1],
            rows: Dtype::F32,
            chunk_rows: 2,
            query: Dtype::F32,
            key: Dtype::F32,
            value: Dtype::F32,
            lists_rows: false,
            overlaps: false,
        }
    }

    /// The call; memory is of the largest that any has.
    fn run(&self, rank: usize, projection: &Projection) -> Result<(), Error> {
        let memory = vec![Page([0xff; 256]); 1024];
        let at = |page: usize| memory[page..].as_ptr().expose_provenance();
        let encoder_rows: i64 = self.rank_rows.iter().sum();
        let rows =
            |page, dtype, count| Rows::new("rows", at(page), dtype, count, WIDTH, 0, None).unwrap();
        let view = |part: Part, page, dtype, rows, gathers: bool| {
            let heads = if gathers { 6 } else { 2 };
            let shape = Shape { layers: self.layer_count, rows, heads, width: 8 };
            View::new(part.name(), shape, target(at(page), dtype, Strides::default())).unwrap()
        };
        let sequence = Sequence {
            rank_rows: &self.rank_rows,
            own: Some(rows(0, self.rows, self.rank_rows[rank])),
            dtype: self.rows,
            row_bytes: WIDTH as usize * self.rows.bytes(),
            chunk_rows: self.chunk_rows,
        };
        let list = self.lists_rows.then(|| {
            let address = LIST.as_ptr().expose_provenance();
            Indices::new("decoder", "row_list", address, 4, ("buffer_rows", 4)).unwrap()
        });
        let decoder_rows = self.decoder_rows;
        let decoder = DecoderSide {
            rows: Rows::new("decoder", at(100), Dtype::F32, decoder_rows, WIDTH, 0, list).unwrap(),
            query: view(Part::Query, 200, self.query, self.decoder_rows, self.gathers_query),
        };
        let encoder = EncoderSide {
            rows: rows(500, self.rows, encoder_rows),
            key: view(
                Part::Key,
                if self.overlaps { 0 } else { 300 },
                self.key,
                encoder_rows,
                self.gathers_key_value,
            ),
            value: view(Part::Value, 400, self.value, encoder_rows, self.gathers_key_value),
        };
        let collective = Collective {
            gathers_query: self.gathers_query,
            gathers_key_value: self.gathers_key_value,
            decoder_rows: self.decoder_rows,
            encoder_rows,
            sequence: Some(sequence),
            phase: Phase::Whole,
        };
        let lane = Lane { workspace: at(500), workspace_bytes: 500 * 256, ..Lane::default() };
        let call = Call {
            layer: self.layer,
            layer_count: self.layer_count,
            decoder: Some(decoder),
            encoder: Some(encoder),
            lane,
            collective: Some(collective),
        };
        // SAFETY: the memory is as long as any of these calls says.
        let outcome = unsafe { projection.forward(&call, None) }.map(drop);
        let results = &memory[200..500];
        let is_untouched = results.iter().all(|page| page.0.iter().all(|&byte| byte == 0xff));
        assert!(outcome.is_ok() || is_untouched, "nothing is written by a call that is refused");
        outcome
    }
}

#[repr(C, align(256))]
#[derive(Clone, Copy)]
struct Page([u8; 256]);

type Oddity = fn(&mut Calling);

const CALLING: [(&str, Oddity); 12] = [
    ("layer", |calling| calling.layer = 1),
    ("layer_count", |calling| calling.layer_count = 2),
    ("decoder.rows", |calling| calling.decoder_rows = 1),
    ("the encoder rows of all ranks", |calling| calling.rank_rows[2] = 9),
    ("XQKV_FORWARD_FLAG_GATHER_QUERY", |calling| calling.gathers_query = false),
    ("XQKV_FORWARD_FLAG_GATHER_KEY_VALUE", |calling| calling.gathers_key_value = false),
    ("encoder_rank_rows (a checksum)", |calling| calling.rank_rows = [1, 3, 2]),
    ("encoder.dtype", |calling| calling.rows = Dtype::Bf16),
    ("chunk_rows", |calling| calling.chunk_rows = 1),
    ("query.dtype", |calling| calling.query = Dtype::Bf16),
    ("key.dtype", |calling| calling.key = Dtype::F16),
    ("value.dtype", |calling| calling.value = Dtype::Bf16),
];

/// A rank's projection with weights.
fn loaded(case: &Case, rank: usize, comm: Comm) -> Projection {
    let heads = Range { begin: 2 * rank as i64, count: 2 };
    let split = Split::Explicit { query: heads, key_value: heads };
    let membership = Membership { comm: Some(Arc::new(comm)), shares_replicas: false };
    case.member(&host(1, None).unwrap(), split, membership)
}

#[test]
fn every_word_of_a_call_that_one_rank_has_otherwise_is_named_and_the_next_call_works() {
    let case = Case::new(Spec { layer_count: 2, ..square(WIDTH, 6, 8, Dtype::F32) }, 3);
    for (name, change) in CALLING {
        let answers = on_all(Comm::threads(RANKS, options()), |rank, comm| {
            let projection = loaded(&case, rank, comm);
            let mut calling = Calling::new();
            if rank == ODD {
                change(&mut calling);
            }
            let answer = calling.run(rank, &projection);
            Calling::new().run(rank, &projection).unwrap();
            answer
        });
        assert_named(name, answers);
    }
}

#[test]
fn what_is_refused_is_refused_before_anything_is_begun_and_the_others_are_told() {
    let listed = Calling { lists_rows: true, ..Calling::new() };
    let overlapping = Calling { overlaps: true, ..Calling::new() };
    for (odd, status, word) in [
        (listed, Status::InvalidArgument, "row_list[2] is 99"),
        (overlapping, Status::Overlap, "key"),
    ] {
        let case = Case::new(Spec { layer_count: 2, ..square(WIDTH, 6, 8, Dtype::F32) }, 3);
        let answers = on_all(Comm::threads(RANKS, options()), |rank, comm| {
            let projection = loaded(&case, rank, comm);
            let calling = if rank == ODD { &odd } else { &Calling::new() };
            let answer = calling.run(rank, &projection);
            Calling::new().run(rank, &projection).unwrap();
            answer.unwrap_err()
        });
        let told = format!("rank 1 refused it with {}", status.name());
        for (rank, error) in answers.iter().enumerate() {
            let own = rank == ODD;
            assert_eq!(error.status, if own { status } else { Status::Mismatch }, "{error}");
            assert!(error.message.contains(if own { word } else { &told }), "{error}");
        }
    }
}

#[test]
fn a_commit_is_one_on_all_ranks_or_on_none() {
    let case = Case::new(square(WIDTH, 6, 8, Dtype::F32), 3);
    let answers = on_all(Comm::threads(RANKS, options()), |rank, comm| {
        let projection = loaded(&case, rank, comm);
        assert_eq!(projection.weights_version(), 1);
        if rank == ODD {
            // A commit of its own, without the others.
            projection.set_comm(None).unwrap();
            projection.commit(&projection.begin()).unwrap();
        }
        projection
    });
    let versions: Vec<u64> = answers.iter().map(Projection::weights_version).collect();
    assert_eq!(versions, [1, 2, 1]);
    let joined = on_all(Comm::threads(RANKS, options()), |rank, comm| {
        answers[rank].set_comm(Some(Arc::new(comm)))
    });
    assert_named("the weights' version", joined);
}

#[test]
fn after_an_abort_calls_without_transfers_go_on_and_a_new_communicator_makes_the_others_possible() {
    let case = Case::new(Spec { layer_count: 2, ..square(WIDTH, 6, 8, Dtype::F32) }, 3);
    let projections = on_all(Comm::threads(RANKS, options()), |rank, comm| {
        let projection = loaded(&case, rank, comm);
        Calling::new().run(rank, &projection).unwrap();
        projection
    });
    let comms: Vec<Arc<Comm>> = Comm::threads(RANKS, options()).into_iter().map(Arc::new).collect();
    let join = |comms: &[Arc<Comm>]| {
        thread::scope(|scope| {
            for (projection, comm) in projections.iter().zip(comms) {
                scope.spawn(|| projection.set_comm(Some(comm.clone())).unwrap());
            }
        });
    };
    join(&comms);
    comms[ODD].abort();
    for (rank, projection) in projections.iter().enumerate() {
        let error = Calling::new().run(rank, projection).unwrap_err();
        let expected = if rank == ODD { Status::CommPoisoned } else { Status::PeerLost };
        assert_eq!(error.status, expected, "{error}");
        let again = Calling::new().run(rank, projection).unwrap_err();
        assert_eq!(again.status, Status::CommPoisoned, "{again}");
    }
    join(&Comm::threads(RANKS, options()).into_iter().map(Arc::new).collect::<Vec<_>>());
    thread::scope(|scope| {
        for (rank, projection) in projections.iter().enumerate() {
            scope.spawn(move || Calling::new().run(rank, projection).unwrap());
        }
    });
}
