// The functions that the answers come from, with the types of NVIDIA's header.
#include <cublasLt.h>

#define FUNCTIONS(each) \
    each(cublasLtGetVersion) \
    each(cublasLtGetStatusName) \
    each(cublasLtGetStatusString) \
    each(cublasLtCreate) \
    each(cublasLtDestroy) \
    each(cublasLtMatrixLayoutInit_internal) \
    each(cublasLtMatrixLayoutCreate) \
    each(cublasLtMatrixLayoutDestroy) \
    each(cublasLtMatrixLayoutSetAttribute) \
    each(cublasLtMatrixLayoutGetAttribute) \
    each(cublasLtMatmulDescInit_internal) \
    each(cublasLtMatmulDescCreate) \
    each(cublasLtMatmulDescDestroy) \
    each(cublasLtMatmulDescSetAttribute) \
    each(cublasLtMatmulDescGetAttribute) \
    each(cublasLtMatmulPreferenceInit_internal) \
    each(cublasLtMatmulPreferenceCreate) \
    each(cublasLtMatmulPreferenceDestroy) \
    each(cublasLtMatmulPreferenceSetAttribute) \
    each(cublasLtMatmulPreferenceGetAttribute)

#define DECLARE(function) extern __typeof__(function) *lt_##function;
FUNCTIONS(DECLARE)

void ask_descriptors(void);
