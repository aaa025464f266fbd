//! What kind of failure ONNX Runtime's words tell of. Its status codes do not: nearly all of CUDA's are `FAIL`.

use crate::backend::{BackendError, FailureKind};

/// Parts of messages that say that memory was short: ONNX Runtime's arena (`bfc_arena.cc`), CUDA, cuBLAS, cuDNN, and
/// the processor's allocator.
const OUT_OF_MEMORY: [&str; 7] = [
    "failed to allocate memory",
    "is smaller than requested bytes",
    "out of memory",
    "cudaerrormemoryallocation",
    "alloc_failed",
    "allocation_failed",
    "bad_alloc",
];
/// CUDA's errors after which nothing runs on a device any more in this process (`driver_types.h` of CUDA 13). What is not
/// here is decided by a row that the backend has run before.
const LOST: [u32; 21] = [
    46,  // DevicesUnavailable
    100, // NoDevice
    101, // InvalidDevice: there is none of that number any more
    214, // ECCUncorrectable
    220, // NvlinkUncorrectable
    709, // ContextIsDestroyed
    802, // SystemNotReady
    999, // Unknown
    // "To continue using CUDA, the process must be terminated and relaunched":
    226, // Contained
    700, // IllegalAddress
    702, // LaunchTimeout
    710, // Assert
    714, // HardwareStackError
    715, // IllegalInstruction
    716, // MisalignedAddress
    717, // InvalidAddressSpace
    718, // InvalidPc
    719, // LaunchFailure
    721, // TensorMemoryLeak
    810, // MpsClientTerminated
    911, // ExternalDevice
];
/// The same where a message has CUDA's words only.
const LOST_WORDS: [&str; 6] = [
    "device-side assert",
    "unspecified launch failure",
    "an illegal memory access was encountered",
    "uncorrectable ecc error",
    "gpu is lost",
    "no cuda-capable device is detected",
];

/// An error of ONNX Runtime, with its kind.
pub(super) fn backend_error(error: impl std::fmt::Display) -> BackendError {
    let detail = super::sentence(error);
    BackendError::of_kind(kind(&detail), detail)
}

fn kind(detail: &str) -> FailureKind {
    let detail = detail.to_lowercase();
    let has = |part: &&str| detail.contains(*part);
    if LOST_WORDS.iter().any(has) || cuda_error(&detail).is_some_and(|code| LOST.contains(&code)) {
        return FailureKind::DeviceLost;
    }
    if OUT_OF_MEMORY.iter().any(has) {
        return FailureKind::OutOfMemory;
    }
    FailureKind::Other
}

/// The number in `CUDA failure 719: unspecified launch failure ; GPU=0 ; …` (`cuda_call.cc`) or `CUDA error 719`.
fn cuda_error(detail: &str) -> Option<u32> {
    let after = |word: &str| detail.split_once(word).map(|(_, rest)| rest);
    let rest = after("cuda failure ").or_else(|| after("cuda error "))?;
    let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_onnx_runtime_and_cuda_tell_the_kind() {
        use FailureKind::{DeviceLost, Other, OutOfMemory};
        for (words, expected) in [
            (
                "Non-zero status code returned while running Conv node. Name:'conv1' Status Message: \
                 /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(\
                 size_t, bool, onnxruntime::Stream*) Failed to allocate memory for requested buffer of size 5368709120",
                OutOfMemory,
            ),
            ("Available memory of 1024 is smaller than requested bytes of 4096", OutOfMemory),
            ("CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; file=x.cc ; line=1", OutOfMemory),
            ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0", OutOfMemory),
            ("CUDNN failure 4003: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", OutOfMemory),
            ("std::bad_alloc", OutOfMemory),
            ("CUDA failure 719: unspecified launch failure ; GPU=1 ; hostname=h", DeviceLost),
            ("CUDA failure 46: all CUDA-capable devices are busy or unavailable ; GPU=0", DeviceLost),
            ("CUDA failure 999: unknown error ; GPU=0", DeviceLost),
            ("CUDA failure 710: device-side assert triggered", DeviceLost),
            ("GPU is lost", DeviceLost),
            (
                "CUDA failure 220: uncorrectable NVLink error detected during the execution ; GPU=0",
                DeviceLost,
            ),
            ("CUDA failure 721: tensor memory not completely freed ; GPU=0", DeviceLost),
            ("CUDA failure 810: MPS client terminated ; GPU=0", DeviceLost),
            ("CUDA failure 911: external device error ; GPU=0", DeviceLost),
            // A launch, a graphics context or a call of the system that failed ends nothing.
            ("CUDA failure 912: invalid cluster size ; GPU=0", Other),
            ("CUDA failure 219: invalid OpenGL or DirectX context ; GPU=0", Other),
            ("CUDA failure 304: OS call failed or operation not supported on this OS ; GPU=0", Other),
            ("CUDA failure 1: invalid argument ; GPU=0 ; expr=cudaMemcpy(719)", Other),
            ("CUDA failure 98: invalid device function ; GPU=0", Other),
            ("indices element out of data bounds, idx=9 must be within the inclusive range [-3,2]", Other),
        ] {
            assert_eq!(backend_error(words).kind(), expected, "{words}");
        }
    }
}
