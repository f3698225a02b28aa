package xqkv_test

import (
	"testing"

	xqkv "github.com/xqkv/xqkv/bindings/go"
)

// fill is a call for three encoder rows: keys 9 4, 5 2, 2 3 and values 9, 6, 0 on layer 0.
func fill(key, value xqkv.View) xqkv.Forward {
	encoder := xqkv.NewInput([]float32{5, 3, 2, 2, 1, 0}, 3)
	return xqkv.Forward{Encoder: encoder, Key: key, Value: value}
}

func TestPagesAreFilledBySlots(t *testing.T) {
	_, projection := small(t)
	hole := poisoned(1)[0]
	// [pages, layers, width, page rows] and [layers, pages, page rows, width], pages of two rows.
	key, value := poisoned(16), poisoned(8)
	call := fill(xqkv.NewView(key), xqkv.NewView(value))
	call.LayerCount = 2
	call.Key.GroupRows, call.Key.GroupStride, call.Key.LayerStride = 2, 8, 4
	call.Key.RowStride, call.Key.WidthStride = 1, 2
	call.Key.Slots, call.Key.SlotCount = []int64{3, -1, 0}, 4
	call.Value.GroupRows = 2
	call.Value.Slots, call.Value.SlotCount = []int64{1, 2, -1}, 4
	for round := 0; round < 2; round++ {
		must(projection.Forward(call))
		same(t, "key", key, []float32{2, hole, 3, hole, 20, hole, 30, hole, hole, 9, hole, 4,
			hole, 90, hole, 40})
		same(t, "value", value, []float32{hole, 9, 6, hole, hole, 90, 60, hole})
	}
}

func TestSequencesOfABatchLieInGroups(t *testing.T) {
	_, projection := small(t)
	hole := poisoned(1)[0]
	// [batch, width, two rows], and [batch, two rows, width] with a gap; the last one is half full.
	key, value := poisoned(8), poisoned(6)
	call := fill(xqkv.NewView(key), xqkv.NewView(value))
	call.Key.GroupRows, call.Key.RowStride, call.Key.WidthStride = 2, 1, 2
	call.Value.GroupRows, call.Value.GroupStride = 2, 3
	must(projection.Forward(call))
	same(t, "key", key, []float32{9, 5, 4, 2, 2, hole, 3, hole})
	same(t, "value", value, []float32{9, 6, hole, 0, hole, hole})
}

func TestEachLayerMayHaveASliceOfItsOwn(t *testing.T) {
	_, projection := small(t)
	keys, values := [][]float32{poisoned(6), poisoned(6)}, [][]float32{poisoned(4), poisoned(3)}
	call := fill(xqkv.NewLayersView(keys), xqkv.NewLayersView(values))
	call.LayerCount = 2
	must(projection.Forward(call))
	hole := poisoned(1)[0]
	same(t, "keys", keys, [][]float32{{9, 4, 5, 2, 2, 3}, {90, 40, 50, 20, 20, 30}})
	same(t, "values", values, [][]float32{{9, 6, 0, hole}, {90, 60, 0}})
}

func TestAccumulateAddsToWhatIsThere(t *testing.T) {
	_, projection := small(t)
	key, value := []float32{1, 1, 1, 1, 1, 1}, []float32{1, 1, 1}
	call := fill(xqkv.NewView(key), xqkv.NewView(value))
	call.Key.Accumulate = true
	must(projection.Forward(call))
	same(t, "key", key, []float32{10, 5, 6, 3, 3, 4})
	same(t, "value", value, []float32{9, 6, 0})
}

func TestARowListTakesRowsInItsOrder(t *testing.T) {
	_, projection := small(t)
	key, value := poisoned(8), poisoned(4)
	call := fill(xqkv.NewView(key), xqkv.NewView(value))
	call.Encoder.Rows, call.Encoder.BufferRows = 4, 3
	call.Encoder.RowList = []int64{2, 0, 0, 1}
	must(projection.Forward(call))
	same(t, "key", key, []float32{2, 3, 9, 4, 9, 4, 5, 2})
	same(t, "value", value, []float32{0, 9, 9, 6})
}

// layoutRefusals are fills that are refused, by what is done to them.
var layoutRefusals = map[string]struct {
	change func(call *xqkv.Forward)
	status xqkv.Status
	says   string
}{
	"a slot out of range": {func(call *xqkv.Forward) { call.Key.Slots[1] = 3 },
		xqkv.StatusInvalidArgument, "key.slots[1] is 3"},
	"two rows in a place": {func(call *xqkv.Forward) { call.Key.Slots[1] = 2 },
		xqkv.StatusOverlap, "key.slots has 2 twice"},
	"a slot too few": {func(call *xqkv.Forward) { call.Key.Slots = call.Key.Slots[1:] },
		xqkv.StatusInvalidShape, "key.Slots has 2 places"},
	"a place too many": {func(call *xqkv.Forward) { call.Key.SlotCount = 4 },
		xqkv.StatusInvalidShape, "key has 6 elements"},
	"places without slots": {func(call *xqkv.Forward) { call.Key.Slots = nil },
		xqkv.StatusInvalidArgument, "key.slot_count is 3"},
	"negative places": {func(call *xqkv.Forward) { call.Key.SlotCount = -1 },
		xqkv.StatusInvalidArgument, "key.slot_count is -1"},
	"a short last group": {func(call *xqkv.Forward) { call.Key.GroupRows = 2 },
		xqkv.StatusInvalidShape, "need 8"},
	"a wide group": {func(call *xqkv.Forward) { call.Key.GroupRows, call.Key.GroupStride = 1, 3 },
		xqkv.StatusInvalidShape, "need 8"},
	"negative groups": {func(call *xqkv.Forward) { call.Key.GroupRows = -1 },
		xqkv.StatusInvalidArgument, "key.group_rows is -1"},
	"a row out of the buffer": {func(call *xqkv.Forward) { call.Encoder.RowList[2] = 3 },
		xqkv.StatusInvalidArgument, "encoder.row_list[2] is 3"},
	"an index too many": {func(call *xqkv.Forward) { call.Encoder.Rows = 2 },
		xqkv.StatusInvalidShape, "encoder.RowList has 3 indices"},
	"a row too many": {func(call *xqkv.Forward) { call.Encoder.BufferRows = 4 },
		xqkv.StatusInvalidShape, "encoder has 6 elements"},
	"a layer too few": {func(call *xqkv.Forward) { call.LayerCount = 2 },
		xqkv.StatusInvalidShape, "value has slices for 1 layers"},
	"a layer too short": {func(call *xqkv.Forward) {
		call.LayerCount, call.Key = 2, xqkv.NewView(poisoned(12))
		call.Value = xqkv.NewLayersView([][]float32{poisoned(3), poisoned(2)})
	}, xqkv.StatusInvalidShape, "value has 2 elements"},
	"layers and a stride": {func(call *xqkv.Forward) { call.Value.LayerStride = 3 },
		xqkv.StatusInvalidArgument, "value.layer_data"},
}

func TestLayoutsThatDoNotFitSayWhyAndWriteNothing(t *testing.T) {
	_, projection := small(t)
	for name, refused := range layoutRefusals {
		key, value := poisoned(6), poisoned(3)
		if name == "a layer too few" {
			key = poisoned(12)
		}
		call := fill(xqkv.NewView(key), xqkv.NewLayersView([][]float32{value}))
		call.Key.Slots, call.Key.SlotCount = []int64{2, 1, 0}, 3
		call.Encoder.RowList, call.Encoder.BufferRows = []int64{0, 1, 2}, 3
		must(projection.Forward(call))
		copy(key, poisoned(len(key)))
		copy(value, poisoned(len(value)))
		refused.change(&call)
		_, err := projection.Forward(call)
		holdError(t, name, err, refused.status, refused.says)
		if !isPoisoned(key) || !isPoisoned(value) {
			t.Errorf("%s: key %v or value %v was written", name, key, value)
		}
	}
}
