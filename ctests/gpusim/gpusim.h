/* The simulated GPU's functions for tests. libgpusim.so has the functions of the driver (cu*), of
 * cuBLASLt (cublasLt*) and of NCCL (nccl*) under their own names as well; a program takes all from
 * it:
 *
 *     export XQKV_CUDA_LIBRARY=.../libgpusim.so XQKV_CUBLASLT_LIBRARY=.../libgpusim.so
 *     XQKV_NCCL_LIBRARY=.../libgpusim.so ./program
 *
 * A test that counts or injects uses the copy that the library uses: it links libgpusim.so, or
 * opens it by the same path.
 *
 * Read from the environment, mostly at cuInit:
 *   GPUSIM_DEVICES                devices, 2 unless given; with 0, cuInit answers 100
 *   GPUSIM_MEMORY_BYTES           each device's memory, 2 GiB unless given
 *   GPUSIM_DRIVER_VERSION         what cuDriverGetVersion says, 13000 unless given
 *   GPUSIM_CUBLASLT_VERSION       what cublasLtGetVersion says, 130401 unless given
 *   GPUSIM_NCCL_VERSION           what ncclGetVersion says, 23003 unless given
 *   GPUSIM_FIRST_DEVICE           which GPU of the machine device 0 is, 0 unless given: processes
 *                                 that each use their device 0 say here that they are not the same
 *   GPUSIM_NCCL_CALL_US           how long a call on a communicator takes at least, 10 unless given
 *   GPUSIM_WIRE_LATENCY_NS        what a collective takes on the made-up clock, 5000 unless given,
 *   GPUSIM_WIRE_BYTES_PER_US      and for its bytes, 100000 unless given
 *   GPUSIM_SEED                   orders what nothing else orders, 1 unless given
 *   GPUSIM_ABORT_ON_VIOLATION=1   prints a violation and aborts where it is made
 *   GPUSIM_REPORT=FILE            a line of JSON is appended there when the process ends
 */
#ifndef GPUSIM_H
#define GPUSIM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Calls of the function so far, also of those that failed; of all functions for NULL. */
uint64_t gpusim_calls(const char *function);

/* Begins the counts of calls and their log anew. */
void gpusim_reset_calls(void);

/* The name of the index-th call since then, or NULL. The text lives as long as the process. */
const char *gpusim_call_log(uint64_t index);

/* The nth call from now (1 is the next), of the function or for NULL of any, answers the status
 * and does nothing. Several may be arranged; 0 for nth forgets those that did not come yet. */
void gpusim_fail(const char *function, int64_t nth, int status);

/* The nth copy, fill or kernel that runs from now fails: its context's later calls answer the
 * status, and nothing runs in it any more. 0 for nth forgets that. */
void gpusim_break_op(int64_t nth, int status);

/* Matrix products launched so far, and their multiply-adds; a graph's count at every launch. */
uint64_t gpusim_matmuls(void);
uint64_t gpusim_multiply_adds(void);

/* What real hardware would have corrupted silently or crashed on: races, accesses out of bounds
 * or to freed memory, host pointers, destroyed handles. A text lives until they are cleared;
 * there is NULL behind the last. */
uint64_t gpusim_violations(void);
const char *gpusim_violation(uint64_t index);
void gpusim_clear_violations(void);

/* What was made and not destroyed: "allocations" (pinned host memory as well), "bytes", "streams",
 * "events", "contexts" (retains of primary ones as well), "graphs" (instantiated ones as well),
 * "modules", "cublaslt" (handles), "descriptors" (cuBLASLt's, those that its *Create functions
 * made), "comms". -1 for another word. */
int64_t gpusim_live(const char *kind);

/* The most memory that was allocated on the device at any time. */
uint64_t gpusim_peak_bytes(int device);

/* The depth of the calling thread's stack of contexts. */
int gpusim_context_depth(void);

/* Begins another sequence of orders among streams. */
void gpusim_seed(uint64_t seed);

/* Whether cuStreamWaitEvent does nothing outside of captures: a test that looks for races has to
 * fail then. */
void gpusim_drop_event_waits(int on);

/* Calls of ncclAllGather, ncclBroadcast, ncclSend and ncclRecv that the rank's communicators in this
 * process have launched, a graph's at every launch, and the bytes that those received from other
 * ranks. -1 is all ranks. */
uint64_t gpusim_collectives(int rank);
uint64_t gpusim_collective_bytes(int rank);

/* For whom a rank still waited when its communicator was aborted: "rank 0 waited: rank 1's process
 * 77 is dead". Not violations: that others die is what an abort is for. There is NULL behind the
 * last. */
uint64_t gpusim_hangs(void);
const char *gpusim_hang(uint64_t index);
void gpusim_clear_hangs(void);

/* The rank's communicators in this process, or all for -1, fail by themselves with this result:
 * ncclCommGetAsyncError says it, and nothing goes on. */
void gpusim_async_error(int rank, int result);

/* What a collective takes on the made-up clock. */
void gpusim_wire(uint64_t latency_ns, uint64_t bytes_per_us);

/* Begins a timeline at 0, or ends keeping one. It says when work would run on devices that do all
 * that order lets them; other processes' ranks that have part in it keep one of their own. */
void gpusim_trace(int on);

typedef struct gpusim_traced_entry {
    const char *name;   /* lives until the timeline begins anew */
    uint64_t stream;
    uint64_t start_ns;  /* of a collective: when its last rank has come to it */
    uint64_t end_ns;
    uint64_t matmuls;
    uint64_t bytes;     /* that a collective receives from other ranks */
    int device;
    int collective;
} gpusim_traced_entry;

/* The index-th piece of work in the order in which they ran, or 0 behind the last. */
int gpusim_traced(uint64_t index, gpusim_traced_entry *entry);

/* How long the timeline's collectives run on the device while no other work of it does. */
uint64_t gpusim_exposed_ns(int device);

#ifdef __cplusplus
}
#endif

#endif
