/* The simulated GPU's functions for tests. libgpusim.so has the functions of the driver (cu*) and
 * of cuBLASLt (cublasLt*) under their own names as well; a program takes both from it:
 *
 *     XQKV_CUDA_LIBRARY=.../libgpusim.so XQKV_CUBLASLT_LIBRARY=.../libgpusim.so ./program
 *
 * A test that counts or injects uses the copy that the library uses: it links libgpusim.so, or
 * opens it by the same path.
 *
 * Read from the environment, mostly at cuInit:
 *   GPUSIM_DEVICES                devices, 2 unless given; with 0, cuInit answers 100
 *   GPUSIM_MEMORY_BYTES           each device's memory, 2 GiB unless given
 *   GPUSIM_DRIVER_VERSION         what cuDriverGetVersion says, 13000 unless given
 *   GPUSIM_CUBLASLT_VERSION       what cublasLtGetVersion says, 130401 unless given
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
 * made). -1 for another word. */
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

#ifdef __cplusplus
}
#endif

#endif
