package xqkv

// #include <xqkv.h>
import "C"

// HeaderVersion is the version of the header that this package was compiled against.
const HeaderVersion = C.XQKV_VERSION_STRING

// HeaderVersionNumber is the same as a number: major * 1000000 + minor * 1000 + patch.
const HeaderVersionNumber = C.XQKV_VERSION_NUMBER

// Version is the library's version, such as "0.1.0".
func Version() string { return C.GoString(C.xqkv_version_string()) }

// VersionNumber is the library's version as a number.
func VersionNumber() int { return int(C.xqkv_version_number()) }

// ensureVersion refuses a library with another binary interface than the header's.
func ensureVersion() error {
	library := int(C.xqkv_version_abi())
	if library == C.XQKV_VERSION_ABI {
		return nil
	}
	return refused(StatusNotSupported, "the library's ABI is %d, this program was compiled for %d; "+
		"install the library of version %s", library, int(C.XQKV_VERSION_ABI), HeaderVersion)
}
