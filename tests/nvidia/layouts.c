// Sizes and offsets in NVIDIA's headers that the library and the simulated GPU rely on. To compile
// it is the check.
#include <cublasLt.h>
#include <cuda.h>
#include <stddef.h>

#define SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), "size of " #type)
#define AT(type, field, bytes) \
    _Static_assert(offsetof(type, field) == (bytes), "offset of " #type "." #field)
// All three descriptors are initialised in 256 bytes, which no version's may outgrow.
#define FITS(type) _Static_assert(sizeof(type) <= 256, "size of " #type)

FITS(cublasLtMatrixLayoutOpaque_t);
FITS(cublasLtMatmulDescOpaque_t);
FITS(cublasLtMatmulPreferenceOpaque_t);

SIZE(cublasLtMatmulAlgo_t, 64);
SIZE(cublasLtMatmulHeuristicResult_t, 96);
AT(cublasLtMatmulHeuristicResult_t, algo, 0);
AT(cublasLtMatmulHeuristicResult_t, workspaceSize, 64);
AT(cublasLtMatmulHeuristicResult_t, state, 72);
AT(cublasLtMatmulHeuristicResult_t, wavesCount, 76);
AT(cublasLtMatmulHeuristicResult_t, reserved, 80);

SIZE(CUdevice, 4);
SIZE(CUdeviceptr, 8);
SIZE(CUuuid, 16);
SIZE(CUresult, 4);
SIZE(cublasStatus_t, 4);

SIZE(CUDA_MEMCPY2D, 128);
AT(CUDA_MEMCPY2D, srcXInBytes, 0);
AT(CUDA_MEMCPY2D, srcY, 8);
AT(CUDA_MEMCPY2D, srcMemoryType, 16);
AT(CUDA_MEMCPY2D, srcHost, 24);
AT(CUDA_MEMCPY2D, srcDevice, 32);
AT(CUDA_MEMCPY2D, srcArray, 40);
AT(CUDA_MEMCPY2D, srcPitch, 48);
AT(CUDA_MEMCPY2D, dstXInBytes, 56);
AT(CUDA_MEMCPY2D, dstY, 64);
AT(CUDA_MEMCPY2D, dstMemoryType, 72);
AT(CUDA_MEMCPY2D, dstHost, 80);
AT(CUDA_MEMCPY2D, dstDevice, 88);
AT(CUDA_MEMCPY2D, dstArray, 96);
AT(CUDA_MEMCPY2D, dstPitch, 104);
AT(CUDA_MEMCPY2D, WidthInBytes, 112);
AT(CUDA_MEMCPY2D, Height, 120);
