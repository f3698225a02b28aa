/* Communicators of xqkv over MPI 3.0 or later, for contexts of the host backend. Header only, C99 or C++11: include it
   in a program that is compiled by mpicc or mpicxx. */
#ifndef XQKV_MPI_H
#define XQKV_MPI_H

#include <limits.h>
#include <mpi.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xqkv.h>

/* Most bytes of one MPI call, whose counts are ints. More go in several calls. */
#ifndef XQKV_MPI_MOST_BYTES
#define XQKV_MPI_MOST_BYTES INT_MAX
#endif

/* Transfers of no more bytes go through memory of the adapter's own, which outlives a call that gave up. */
#ifndef XQKV_MPI_MOST_STAGED_BYTES
#define XQKV_MPI_MOST_STAGED_BYTES (1 << 20)
#endif

/* Memory to free when all transfers are done, which is copied to `target` before if that is not NULL. */
typedef struct xqkv_mpi_kept {
    void *memory;
    void *target;
    size_t bytes;
} xqkv_mpi_kept;

/* A seat among the ranks of an MPI communicator. `comm` is for xqkv_projection_options.comm and
   xqkv_projection_set_comm; all else is the adapter's own. */
typedef struct xqkv_mpi_comm {
    xqkv_comm *comm;
    MPI_Comm ranks;
    pthread_mutex_t lock;
    MPI_Request *requests;
    int *peers;
    int request_count;
    xqkv_mpi_kept *kept;
    int kept_count;
} xqkv_mpi_comm;

/* Makes this rank's communicator. All ranks of `ranks` call it, after MPI_Init; it ends in TIMED_OUT on those that wait
   longer for the others than `options` allow. The engine's messages and xqkv's never meet: `ranks` is duplicated, and
   not kept. `options` may be NULL. `*made` is written only on success, and is the caller's to destroy.

   MPI is called by the thread that is in a call of xqkv with transfers, and by callers of xqkv_comm_poll and
   xqkv_comm_abort: the engine asks MPI_Init_thread for what its threads need, which is MPI_THREAD_MULTIPLE if one of them
   may call MPI or xqkv while another does.

   What MPI cannot do: it has no way to end the collectives of one communicator. A call that gives up, at its deadline or
   by xqkv_comm_abort, cancels what it receives; but when transfers of more than XQKV_MPI_MOST_STAGED_BYTES were under
   way, a rank that comes late may still write to the rows, views and workspace of the call. Keep them until the process
   ends, or end it: most engines call MPI_Abort then. A process that dies is mpirun's matter, which ends all.

   Returns: NULL_ARGUMENT, OUT_OF_MEMORY, TIMED_OUT, PEER_LOST, and what xqkv_comm_create_collectives does. */
static inline xqkv_status xqkv_mpi_comm_create(MPI_Comm ranks, const xqkv_comm_options *options, xqkv_mpi_comm **made,
                                               xqkv_error *error);

/* Unmakes it: after the projections that use it are destroyed or have been given another communicator, and while no call
   runs on it. All ranks call it, before MPI_Finalize. What was still under way since an abort is left to MPI. NULL does
   nothing.

   Returns: INVALID_HANDLE. */
static inline xqkv_status xqkv_mpi_comm_destroy(xqkv_mpi_comm *made, xqkv_error *error);

/* The rest is how it is done. */

static inline xqkv_status xqkv_mpi_status(int answer) {
    int kind = MPI_SUCCESS;
    if (answer == MPI_SUCCESS) return XQKV_STATUS_OK;
    MPI_Error_class(answer, &kind);
    return kind == MPI_ERR_NO_MEM ? XQKV_STATUS_OUT_OF_MEMORY : XQKV_STATUS_PEER_LOST;
}

/* Room for one more request, with the rank that is received from; -1 if it is no receive. NULL if memory ran out. */
static inline MPI_Request *xqkv_mpi_request(xqkv_mpi_comm *own, int peer) {
    size_t count = (size_t)own->request_count + 1;
    MPI_Request *requests = (MPI_Request *)realloc(own->requests, count * sizeof *requests);
    if (requests != NULL) own->requests = requests;
    int *peers = (int *)realloc(own->peers, count * sizeof *peers);
    if (peers != NULL) own->peers = peers;
    if (requests == NULL || peers == NULL) return NULL;
    peers[count - 1] = peer;
    requests[count - 1] = MPI_REQUEST_NULL;
    own->request_count++;
    return &requests[count - 1];
}

/* Memory that stays until all transfers are done, and is copied to `target` then. */
static inline void *xqkv_mpi_keep(xqkv_mpi_comm *own, void *target, size_t bytes) {
    size_t count = (size_t)own->kept_count + 1;
    xqkv_mpi_kept *kept = (xqkv_mpi_kept *)realloc(own->kept, count * sizeof *kept);
    if (kept == NULL) return NULL;
    own->kept = kept;
    void *memory = malloc(bytes > 0 ? bytes : 1);
    if (memory == NULL) return NULL;
    kept[count - 1].memory = memory;
    kept[count - 1].target = target;
    kept[count - 1].bytes = bytes;
    own->kept_count++;
    return memory;
}

/* The memory that a transfer works in: the caller's if it is large, else the adapter's with the same bytes. */
static inline void *xqkv_mpi_stage(xqkv_mpi_comm *own, void *buffer, int64_t bytes, int is_written) {
    if (bytes == 0 || bytes > XQKV_MPI_MOST_STAGED_BYTES) return buffer;
    void *staged = xqkv_mpi_keep(own, is_written ? buffer : NULL, (size_t)bytes);
    if (staged != NULL) memcpy(staged, buffer, (size_t)bytes);
    return staged;
}

/* The transfers are done: what was staged goes where it belongs. */
static inline void xqkv_mpi_deliver(xqkv_mpi_comm *own) {
    for (int at = 0; at < own->kept_count; at++) {
        if (own->kept[at].target != NULL) memcpy(own->kept[at].target, own->kept[at].memory, own->kept[at].bytes);
        free(own->kept[at].memory);
    }
    own->kept_count = own->request_count = 0;
}

/* One rank's bytes to all, in as many calls as their counts need. */
static inline xqkv_status xqkv_mpi_spread(xqkv_mpi_comm *own, char *buffer, int64_t bytes, int root) {
    for (int64_t done = 0; done < bytes;) {
        int part = (int)(bytes - done < XQKV_MPI_MOST_BYTES ? bytes - done : XQKV_MPI_MOST_BYTES);
        MPI_Request *request = xqkv_mpi_request(own, -1);
        if (request == NULL) return XQKV_STATUS_OUT_OF_MEMORY;
        int answer = MPI_Ibcast(buffer + done, part, MPI_BYTE, root, own->ranks, request);
        if (answer != MPI_SUCCESS) return xqkv_mpi_status(answer);
        done += part;
    }
    return XQKV_STATUS_OK;
}

/* All ranks' bytes to all, where ints count them. MPI reads counts and places until it is done. */
static inline xqkv_status xqkv_mpi_gather(xqkv_mpi_comm *own, char *buffer, const int64_t *bytes, int rank_count) {
    int *counts = (int *)xqkv_mpi_keep(own, NULL, 2 * sizeof(int) * (size_t)rank_count);
    MPI_Request *request = counts == NULL ? NULL : xqkv_mpi_request(own, -1);
    if (request == NULL) return XQKV_STATUS_OUT_OF_MEMORY;
    int *places = counts + rank_count, total = 0;
    for (int rank = 0; rank < rank_count; rank++) {
        counts[rank] = (int)bytes[rank], places[rank] = total;
        total += counts[rank];
    }
    return xqkv_mpi_status(MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, buffer, counts, places, MPI_BYTE,
                                           own->ranks, request));
}

static inline int32_t xqkv_mpi_all_gather(void *buffer, const int64_t *bytes, int64_t rank_count, void *stream,
                                          void *user) {
    xqkv_mpi_comm *own = (xqkv_mpi_comm *)user;
    int64_t total = 0;
    for (int64_t rank = 0; rank < rank_count; rank++) total += bytes[rank];
    if (stream != NULL) return XQKV_STATUS_NOT_SUPPORTED;
    pthread_mutex_lock(&own->lock);
    xqkv_status status = XQKV_STATUS_OK;
    char *memory = (char *)xqkv_mpi_stage(own, buffer, total, 1);
    if (memory == NULL && total > 0) status = XQKV_STATUS_OUT_OF_MEMORY;
    else if (total <= XQKV_MPI_MOST_BYTES) status = xqkv_mpi_gather(own, memory, bytes, (int)rank_count);
    else
        for (int64_t rank = 0; rank < rank_count && status == XQKV_STATUS_OK; memory += bytes[rank++])
            status = xqkv_mpi_spread(own, memory, bytes[rank], (int)rank);
    pthread_mutex_unlock(&own->lock);
    return status;
}

static inline int32_t xqkv_mpi_broadcast(void *buffer, int64_t bytes, int64_t root, void *stream, void *user) {
    xqkv_mpi_comm *own = (xqkv_mpi_comm *)user;
    int rank = -1;
    if (stream != NULL) return XQKV_STATUS_NOT_SUPPORTED;
    pthread_mutex_lock(&own->lock);
    MPI_Comm_rank(own->ranks, &rank);
    char *memory = (char *)xqkv_mpi_stage(own, buffer, bytes, rank != root);
    int is_there = memory != NULL || bytes == 0;
    xqkv_status status = is_there ? xqkv_mpi_spread(own, memory, bytes, (int)root) : XQKV_STATUS_OUT_OF_MEMORY;
    pthread_mutex_unlock(&own->lock);
    return status;
}

/* One message, in as many calls as its count needs; MPI keeps the order of those between two ranks. */
static inline xqkv_status xqkv_mpi_send_or_receive(xqkv_mpi_comm *own, const xqkv_message *message) {
    char *memory = (char *)xqkv_mpi_stage(own, message->data, message->bytes, !message->is_sent);
    if (memory == NULL && message->bytes > 0) return XQKV_STATUS_OUT_OF_MEMORY;
    for (int64_t done = 0; done < message->bytes;) {
        int64_t left = message->bytes - done;
        int part = (int)(left < XQKV_MPI_MOST_BYTES ? left : XQKV_MPI_MOST_BYTES), peer = (int)message->peer;
        MPI_Request *request = xqkv_mpi_request(own, message->is_sent ? -1 : peer);
        if (request == NULL) return XQKV_STATUS_OUT_OF_MEMORY;
        int answer = message->is_sent ? MPI_Isend(memory + done, part, MPI_BYTE, peer, 0, own->ranks, request)
                                      : MPI_Irecv(memory + done, part, MPI_BYTE, peer, 0, own->ranks, request);
        if (answer != MPI_SUCCESS) return xqkv_mpi_status(answer);
        done += part;
    }
    return XQKV_STATUS_OK;
}

static inline int32_t xqkv_mpi_exchange(const xqkv_message *messages, int64_t count, void *stream, void *user) {
    xqkv_mpi_comm *own = (xqkv_mpi_comm *)user;
    xqkv_status status = stream == NULL ? XQKV_STATUS_OK : XQKV_STATUS_NOT_SUPPORTED;
    pthread_mutex_lock(&own->lock);
    for (int64_t at = 0; at < count && status == XQKV_STATUS_OK; at++)
        status = xqkv_mpi_send_or_receive(own, &messages[at]);
    pthread_mutex_unlock(&own->lock);
    return status;
}

/* The first rank whose message is still missing; -1 if there is none: collectives tell nothing of ranks. */
static inline int64_t xqkv_mpi_awaited(const xqkv_mpi_comm *own) {
    for (int at = 0; at < own->request_count; at++) {
        int is_done = 1;
        if (own->peers[at] >= 0) MPI_Request_get_status(own->requests[at], &is_done, MPI_STATUS_IGNORE);
        if (!is_done) return own->peers[at];
    }
    return -1;
}

static inline int32_t xqkv_mpi_poll(int32_t *is_done, int64_t *rank, void *user) {
    xqkv_mpi_comm *own = (xqkv_mpi_comm *)user;
    int all = 0;
    pthread_mutex_lock(&own->lock);
    int answer = MPI_Testall(own->request_count, own->requests, &all, MPI_STATUSES_IGNORE);
    if (answer == MPI_SUCCESS && all) xqkv_mpi_deliver(own);
    if (answer == MPI_SUCCESS && !all) *rank = xqkv_mpi_awaited(own);
    pthread_mutex_unlock(&own->lock);
    *is_done = all;
    return xqkv_mpi_status(answer);
}

/* Cancels what is received, and forgets the places of what was staged. Requests and memory that MPI still uses stay. */
static inline void xqkv_mpi_abort(void *user) {
    xqkv_mpi_comm *own = (xqkv_mpi_comm *)user;
    int all = 0;
    pthread_mutex_lock(&own->lock);
    for (int at = 0; at < own->kept_count; at++) own->kept[at].target = NULL;
    for (int at = 0; at < own->request_count; at++)
        if (own->peers[at] >= 0 && own->requests[at] != MPI_REQUEST_NULL) MPI_Cancel(&own->requests[at]);
    MPI_Testall(own->request_count, own->requests, &all, MPI_STATUSES_IGNORE);
    if (all) xqkv_mpi_deliver(own);
    pthread_mutex_unlock(&own->lock);
}

static inline xqkv_status xqkv_mpi_refuse(xqkv_error *error, xqkv_status status, const char *message) {
    if (error != NULL) {
        error->status = status;
        snprintf(error->message, sizeof error->message, "%s", message);
    }
    return status;
}

/* A communicator of the same ranks, or none if they do not all come in time. */
static inline xqkv_status xqkv_mpi_duplicate(xqkv_mpi_comm *own, MPI_Comm ranks, int64_t deadline_ms, xqkv_error *error) {
    MPI_Request request = MPI_REQUEST_NULL;
    int is_done = 0;
    int answer = MPI_Comm_idup(ranks, &own->ranks, &request);
    double end = MPI_Wtime() + (double)(deadline_ms > 0 ? deadline_ms : 60000) / 1000;
    while (answer == MPI_SUCCESS && !is_done && MPI_Wtime() < end) {
        answer = MPI_Test(&request, &is_done, MPI_STATUS_IGNORE);
        if (!is_done) sched_yield();
    }
    if (answer != MPI_SUCCESS) return xqkv_mpi_refuse(error, xqkv_mpi_status(answer), "MPI_Comm_idup failed");
    if (!is_done) return xqkv_mpi_refuse(error, XQKV_STATUS_TIMED_OUT, "xqkv_mpi_comm_create: not all ranks came");
    MPI_Comm_set_errhandler(own->ranks, MPI_ERRORS_RETURN);
    return XQKV_STATUS_OK;
}

static inline xqkv_status xqkv_mpi_wrap(xqkv_mpi_comm *own, const xqkv_comm_options *options, xqkv_error *error) {
    xqkv_collectives collectives;
    int rank = 0, rank_count = 0;
    xqkv_status status = xqkv_collectives_init(&collectives, sizeof collectives);
    if (status != XQKV_STATUS_OK) return xqkv_mpi_refuse(error, status, "the library is not this header's");
    MPI_Comm_rank(own->ranks, &rank);
    MPI_Comm_size(own->ranks, &rank_count);
    collectives.all_gather = xqkv_mpi_all_gather;
    collectives.broadcast = xqkv_mpi_broadcast;
    collectives.exchange = xqkv_mpi_exchange;
    collectives.poll = xqkv_mpi_poll;
    collectives.abort = xqkv_mpi_abort;
    collectives.user = own;
    return xqkv_comm_create_collectives(options, &collectives, rank, rank_count, &own->comm, error);
}

/* Frees what is behind it, unless MPI still uses it. */
static inline void xqkv_mpi_free(xqkv_mpi_comm *own) {
    int all = 0;
    if (own->request_count > 0) MPI_Testall(own->request_count, own->requests, &all, MPI_STATUSES_IGNORE);
    if (own->request_count > 0 && !all) return;
    xqkv_mpi_deliver(own);
    if (own->ranks != MPI_COMM_NULL) MPI_Comm_free(&own->ranks);
    pthread_mutex_destroy(&own->lock);
    free(own->requests);
    free(own->peers);
    free(own->kept);
    free(own);
}

static inline xqkv_status xqkv_mpi_comm_create(MPI_Comm ranks, const xqkv_comm_options *options, xqkv_mpi_comm **made,
                                               xqkv_error *error) {
    if (made == NULL) return xqkv_mpi_refuse(error, XQKV_STATUS_NULL_ARGUMENT, "made is NULL");
    xqkv_mpi_comm *own = (xqkv_mpi_comm *)calloc(1, sizeof *own);
    if (own == NULL) return xqkv_mpi_refuse(error, XQKV_STATUS_OUT_OF_MEMORY, "no memory for a communicator");
    own->ranks = MPI_COMM_NULL;
    pthread_mutex_init(&own->lock, NULL);
    xqkv_status status = xqkv_mpi_duplicate(own, ranks, options == NULL ? 0 : options->deadline_ms, error);
    /* MPI may still write to what it was given. */
    if (status != XQKV_STATUS_OK) return status;
    status = xqkv_mpi_wrap(own, options, error);
    if (status == XQKV_STATUS_OK) *made = own;
    else xqkv_mpi_free(own);
    return status;
}

static inline xqkv_status xqkv_mpi_comm_destroy(xqkv_mpi_comm *made, xqkv_error *error) {
    if (made == NULL) return XQKV_STATUS_OK;
    xqkv_status status = xqkv_comm_destroy(made->comm, error);
    if (status == XQKV_STATUS_OK) xqkv_mpi_free(made);
    return status;
}

#endif
