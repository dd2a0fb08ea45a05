//! Whether a log is to be rotated, and how much of it. Pure.
//!
//! ```text
//!   |        far too much        |  max_files + 1 times max_size  |
//!   |  dropped: it would not be  |       max_size | what stays    |      the usual case
//!   |  kept anyway               |     n times max_size | stays  |      the writer is faster
//! ```
//! A rotated file is as large as `max_size`. Only where a log has grown beyond twice of that meanwhile it
//! is larger: taking the head away has its price, and paying it for each piece would be ever too late. But
//! no file is larger than half of what is kept.
//! What is cut is a multiple of [`ALIGN`], which is a multiple of the blocks of all usual file systems.

use std::time::Duration;

use crate::model::spec::LogSpec;

/// What is removed by collapsing is a multiple of this.
pub(super) const ALIGN: u64 = 64 * 1024;

/// A log of less than this is left alone, however old it is: a block is the least that can be removed.
const LEAST: u64 = 4096;

/// What is to become of the head of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Head {
    /// So many bytes are removed, and not kept.
    Drop(u64),
    /// So many bytes become a rotated file.
    Keep(u64),
}

/// Whether a log of this length, whose oldest line is of this age, is to be rotated.
pub(in crate::logs) fn is_due(spec: &LogSpec, length: u64, age: Option<Duration>) -> bool {
    length > spec.max_size.max(ALIGN) || is_old(spec, length, age)
}

fn is_old(spec: &LogSpec, length: u64, age: Option<Duration>) -> bool {
    let (Some(limit), Some(age)) = (spec.max_age, age) else { return false };
    age >= limit && length > LEAST
}

/// What is cut off by collapsing; `block` is that of the file system. Something is always left, for a
/// file cannot be collapsed to its end. `None`: there is nothing to cut.
pub(super) fn by_collapsing(
    spec: &LogSpec,
    length: u64,
    age: Option<Duration>,
    block: u64,
) -> Option<Head> {
    if !is_due(spec, length, age) {
        return None;
    }
    let whole = |length: u64, block: u64| length / block.max(1) * block.max(1);
    let size = spec.max_size.max(ALIGN);
    let superfluous = whole(superfluous(spec, length), ALIGN);
    if superfluous > 0 {
        return Some(Head::Drop(superfluous));
    }
    let bytes = if length > size {
        // The last byte always stays; and no file may be most of what is kept.
        let files = ((length - 1) / size).min(u64::from(spec.max_files) / 2).max(1);
        whole(files * size, ALIGN)
    } else {
        whole(length - 1, block)
    };
    match (bytes, spec.max_files) {
        (0, _) => None,
        (bytes, 0) => Some(Head::Drop(bytes)),
        (bytes, _) => Some(Head::Keep(bytes)),
    }
}

/// How many bytes at the beginning of a log that is copied as a whole are not worth it.
pub(super) fn superfluous(spec: &LogSpec, length: u64) -> u64 {
    let size = spec.max_size.max(ALIGN);
    if spec.max_files == 0 {
        return 0;
    }
    let kept = size.saturating_mul(u64::from(spec.max_files).saturating_add(1));
    // A file more than is kept is no reason to do it differently: it is only a little late.
    if length > kept.saturating_add(size) { length - kept } else { 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MB: u64 = 1_000_000;

    fn spec(max_size: u64, max_files: u32) -> LogSpec {
        LogSpec { max_size, max_files, ..LogSpec::default() }
    }

    #[test]
    fn a_log_is_cut_at_its_size_and_what_would_not_be_kept_is_dropped() {
        let cut = |spec: &LogSpec, length| by_collapsing(spec, length, None, 4096);
        let usual = spec(50 * MB, 5);
        let file = 50 * MB / ALIGN * ALIGN;
        assert_eq!(cut(&usual, 50 * MB), None);
        assert_eq!(cut(&usual, 50 * MB + 1), Some(Head::Keep(file)));
        assert_eq!(cut(&usual, 99 * MB), Some(Head::Keep(file)));
        let two = 100 * MB / ALIGN * ALIGN;
        assert_eq!(cut(&usual, 349 * MB), Some(Head::Keep(two)), "half of what is kept");
        let many = 300 * MB / ALIGN * ALIGN;
        assert_eq!(cut(&spec(50 * MB, 50), 349 * MB), Some(Head::Keep(many)), "all that is whole");
        assert_eq!(cut(&usual, 500 * MB), Some(Head::Drop(200 * MB / ALIGN * ALIGN)));
        assert_eq!(cut(&spec(50 * MB, 0), 51 * MB), Some(Head::Drop(file)));
        assert_eq!(cut(&spec(1, 2), ALIGN), None, "less than a block cannot be cut");
        assert_eq!(cut(&spec(1, 2), ALIGN + 1), Some(Head::Keep(ALIGN)));
    }

    #[test]
    fn an_old_log_is_cut_whatever_its_size() {
        let day = Duration::from_secs(86_400);
        let weekly = LogSpec { max_age: Some(7 * day), ..LogSpec::default() };
        let cut = |length, age| by_collapsing(&weekly, length, age, 4096);
        assert_eq!(cut(10_000, Some(7 * day)), Some(Head::Keep(8192)));
        assert_eq!(cut(10_000, Some(6 * day)), None);
        assert_eq!(cut(10_000, None), None);
        assert_eq!(cut(4096, Some(9 * day)), None);
        assert_eq!(cut(4097, Some(9 * day)), Some(Head::Keep(4096)));
    }

    proptest! {
        #[test]
        fn something_is_always_left_and_blocks_are_whole(
            size in 1..10 * ALIGN, files in 0_u32..4, length in 0..100 * ALIGN, old in any::<bool>()
        ) {
            let age = Duration::from_secs(10);
            let spec = LogSpec { max_age: old.then_some(age), ..spec(size, files) };
            if let Some(Head::Drop(bytes) | Head::Keep(bytes)) =
                by_collapsing(&spec, length, Some(age), 4096)
            {
                prop_assert!(bytes > 0 && bytes < length && bytes % 4096 == 0);
            }
        }
    }
}
