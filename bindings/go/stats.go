package xqkv

// #include <xqkv.h>
import "C"

// Stats is what one forward did, counted where it was done.
type Stats struct {
	// MultiplyAdds were executed for outputs that were asked for.
	MultiplyAdds int64
	// PaddingMultiplyAdds were executed beside them because vectors have a fixed length.
	PaddingMultiplyAdds int64
	// Matmuls are the matrix products that the work was given to the backend as.
	Matmuls int64
	// WeightsVersion is the commit that the whole call ran on; 1 is the first.
	WeightsVersion int64
	// PlansMade counts plans that were made because none was given.
	PlansMade int64
	// Transfers counts those between ranks that the call started.
	Transfers int64
	// ReceivedBytes came from other ranks by them.
	ReceivedBytes int64
}

var blankStats = func() (plain C.xqkv_stats) {
	C.xqkv_stats_init(&plain, C.sizeof_xqkv_stats)
	return
}()

func statsOf(plain *C.xqkv_stats) Stats {
	return Stats{
		MultiplyAdds:        int64(plain.multiply_adds),
		PaddingMultiplyAdds: int64(plain.padding_multiply_adds),
		Matmuls:             int64(plain.matmuls),
		WeightsVersion:      int64(plain.weights_version),
		PlansMade:           int64(plain.plans_made),
		Transfers:           int64(plain.transfers),
		ReceivedBytes:       int64(plain.received_bytes),
	}
}
