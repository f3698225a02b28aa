// The wrapper in a second unit of the same program.
#include <xqkv.hpp>

#include <xqkv.hpp>

int second_unit();

int second_unit() { return static_cast<int>(xqkv_dtype_bytes(xqkv::dtype_of<xqkv::half>())); }
