/* MPI for a program that is not built with it: a shared object that the program opens when it is asked to run under
   mpirun, as `xqkv verify --comm mpi` does. xqkv's own functions are the program's.

       mpicc -shared -fPIC -I include -I bindings/mpi bindings/mpi/plugin.c -o libxqkv_mpi_plugin.so */
#include <xqkv_mpi.h>

static xqkv_mpi_comm *made;

/* Joins all ranks of the program. Answers an xqkv_status. */
int32_t xqkv_mpi_plugin_open(int64_t *rank, int64_t *rank_count, xqkv_comm **comm) {
    int own = 0, count = 0, provided = 0;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS) return XQKV_STATUS_PEER_LOST;
    MPI_Comm_rank(MPI_COMM_WORLD, &own);
    MPI_Comm_size(MPI_COMM_WORLD, &count);
    *rank = own;
    *rank_count = count;
    int32_t status = (int32_t)xqkv_mpi_comm_create(MPI_COMM_WORLD, NULL, &made, NULL);
    *comm = status == XQKV_STATUS_OK ? made->comm : NULL;
    return status;
}

/* The sum of all ranks' values. */
int64_t xqkv_mpi_plugin_sum(int64_t value) {
    int64_t sum = 0;
    MPI_Allreduce(&value, &sum, 1, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
    return sum;
}

/* Leaves them; what used the communicator is gone. */
void xqkv_mpi_plugin_close(void) {
    xqkv_mpi_comm_destroy(made, NULL);
    MPI_Finalize();
}
