//! Waiting until no kernel program reads what it found before, and the clock that the programs use.

use std::time::Duration;

const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
/// Where the kernel cannot be made to wait: programs run for microseconds, and no machine stands still for this long.
const LONG_ENOUGH: Duration = Duration::from_millis(50);

/// Waits until every program has ended that runs now: the global barrier is a grace period of RCU (membarrier(2)), under
/// which programs run.
pub(crate) fn wait_for_readers() {
    // SAFETY: the call takes no pointers.
    #[expect(unsafe_code, reason = "no crate wraps this call")]
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        std::thread::sleep(LONG_ENOUGH);
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds.
pub(crate) fn monotonic_ns() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        u64::try_from(time.tv_sec())
            .unwrap_or(0)
            .saturating_mul(1_000_000_000)
            .saturating_add(u64::try_from(time.tv_nsec()).unwrap_or(0))
    })
}
