package xqkv

// #include <xqkv.h>
import "C"

import "runtime"

// Split is how heads are spread over the ranks. No head is ever cut.
type Split int32

// The splits.
const (
	// SplitEven gives equal shares; with more ranks than key/value heads those are replicated.
	SplitEven Split = C.XQKV_SPLIT_EVEN
	// SplitExplicit gives the heads that the options name.
	SplitExplicit Split = C.XQKV_SPLIT_EXPLICIT
	// SplitQuery gives equal shares of Q, and all of K and V to every rank.
	SplitQuery Split = C.XQKV_SPLIT_QUERY
)

// ProjectionOptions is what a rank holds of a spec; zero is the whole.
type ProjectionOptions struct {
	Split Split
	// Rank of RankCount, of a split that is even or of Q; RankCount 0 is 1.
	Rank, RankCount int
	// The heads of an explicit split; no heads of a side is legal.
	QueryHeadBegin, QueryHeadCount       int
	KeyValueHeadBegin, KeyValueHeadCount int
	// LayerBegin and LayerCount are for ranks of a pipeline; a count of 0 is all the rest.
	LayerBegin, LayerCount int
}

// Balance is an explicit split for a rank of any number of ranks: shares of heads that differ by at
// most one.
func Balance(spec Spec, rank, rankCount int) (ProjectionOptions, error) {
	whole, plain := spec.plain(), ProjectionOptions{}.plain()
	err := called(func(report *C.xqkv_error) C.xqkv_status {
		number, count := C.int64_t(rank), C.int64_t(rankCount)
		return C.xqkv_projection_options_balance(&plain, &whole, number, count, report)
	})
	if err != nil {
		return ProjectionOptions{}, err
	}
	return ProjectionOptions{
		Split:          Split(plain.split),
		QueryHeadBegin: int(plain.query_head_begin), QueryHeadCount: int(plain.query_head_count),
		KeyValueHeadBegin: int(plain.key_value_head_begin),
		KeyValueHeadCount: int(plain.key_value_head_count),
	}, nil
}

func (options ProjectionOptions) plain() (plain C.xqkv_projection_options) {
	C.xqkv_projection_options_init(&plain, C.sizeof_xqkv_projection_options)
	plain.split = C.int32_t(options.Split)
	plain.rank, plain.rank_count = C.int64_t(options.Rank), C.int64_t(options.RankCount)
	plain.query_head_begin = C.int64_t(options.QueryHeadBegin)
	plain.query_head_count = C.int64_t(options.QueryHeadCount)
	plain.key_value_head_begin = C.int64_t(options.KeyValueHeadBegin)
	plain.key_value_head_count = C.int64_t(options.KeyValueHeadCount)
	plain.layer_begin, plain.layer_count = C.int64_t(options.LayerBegin), C.int64_t(options.LayerCount)
	return plain
}

// Projection is this rank's shard of Wq, Wk and Wv of all layers. Any goroutine may use it, several
// at once, also while an update is being committed.
type Projection struct {
	owner                      owner[*C.xqkv_projection]
	shard                      Shard
	decoderWidth, encoderWidth int
	keyWidth, valueWidth       int
}

// NewProjection makes a projection without weights; Begin loads them. One that is dropped without
// Close is closed by the garbage collector at a time of its own choosing; do not count on it.
func NewProjection(context *Context, spec Spec, options ProjectionOptions) (*Projection, error) {
	shard, err := spec.Cut(options)
	if err != nil {
		return nil, err
	}
	projection := &Projection{shard: shard, decoderWidth: spec.DecoderWidth}
	projection.encoderWidth, projection.keyWidth = spec.EncoderWidth, spec.HeadWidth
	projection.valueWidth = orPacked(spec.ValueHeadWidth, spec.HeadWidth)
	whole, part := spec.plain(), options.plain()
	err = context.owner.use(func(handle *C.xqkv_context) error {
		projection.owner.logger = context.owner.logger.keep()
		return called(func(report *C.xqkv_error) C.xqkv_status {
			return C.xqkv_projection_create(handle, &whole, &part, &projection.owner.handle, report)
		})
	})
	if err != nil {
		projection.owner.logger.drop()
		return nil, err
	}
	runtime.SetFinalizer(projection, func(dropped *Projection) { _ = dropped.Close() })
	return projection, nil
}

// Load makes a projection with this rank's weights of a checkpoint.
func Load(
	context *Context, spec Spec, options ProjectionOptions, checkpoint Checkpoint,
) (*Projection, error) {
	projection, err := NewProjection(context, spec, options)
	if err != nil {
		return nil, err
	}
	if err := projection.read(checkpoint); err != nil {
		_ = projection.Close()
		return nil, err
	}
	return projection, nil
}

func (projection *Projection) read(checkpoint Checkpoint) error {
	update, err := projection.Begin()
	if err != nil {
		return err
	}
	defer update.Close()
	if err := update.Read(checkpoint); err != nil {
		return err
	}
	_, err = update.Commit()
	return err
}

// Shard tells what this rank holds.
func (projection *Projection) Shard() (Shard, error) {
	plain := blankShard()
	err := projection.owner.use(func(handle *C.xqkv_projection) error {
		return called(func(report *C.xqkv_error) C.xqkv_status {
			return C.xqkv_projection_get_shard(handle, &plain, report)
		})
	})
	if err != nil {
		return Shard{}, err
	}
	return shardOf(&plain), nil
}

// WeightsVersion tells which commit the weights come from; 0 is none yet.
func (projection *Projection) WeightsVersion() (int64, error) {
	var version C.int64_t
	err := projection.owner.use(func(handle *C.xqkv_projection) error {
		return called(func(report *C.xqkv_error) C.xqkv_status {
			return C.xqkv_projection_get_weights_version(handle, &version, report)
		})
	})
	return int64(version), err
}

// Close unmakes the projection once the calls on it are over; a second time does nothing.
func (projection *Projection) Close() error {
	return projection.owner.close(func(handle *C.xqkv_projection) error {
		return called(func(report *C.xqkv_error) C.xqkv_status {
			return C.xqkv_projection_destroy(handle, report)
		})
	})
}
