//! The file in which every copy of the troublemaker writes itself down (`--births`): the proof that
//! at most one copy of an instance ever lives.

use std::fs;
use std::path::Path;

/// One process that began to live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Birth {
    /// Its pid.
    pub(crate) pid: u32,
    /// With the pid: who it is. In clock ticks since boot.
    pub(crate) start_ticks: u64,
    /// When its own code ran, on `CLOCK_MONOTONIC`, in nanoseconds.
    pub(crate) at_nanos: u64,
}

/// Everything in a births file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Births {
    /// Those that were alone, oldest first.
    pub(crate) born: Vec<Birth>,
    /// Those that found another copy alive. There must be none.
    pub(crate) doubles: Vec<Birth>,
}

impl Births {
    /// Reads `path`; nobody was born yet if it is not there.
    pub(crate) fn read(path: &Path) -> Self {
        let mut births = Self::default();
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return births,
            Err(error) => panic!("cannot read {}: {error}", path.display()),
        };
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |index: usize| words.get(index).and_then(|word| word.parse().ok());
            let birth = number(1).zip(number(2)).zip(number(3));
            let Some(((pid, start_ticks), at_nanos)) = birth else {
                panic!("{} holds a line that is no birth: {line:?}", path.display());
            };
            let Ok(pid) = u32::try_from(pid) else { panic!("no pid: {line:?}") };
            let birth = Birth { pid, start_ticks, at_nanos };
            match words[0] {
                "born" => births.born.push(birth),
                "double" => births.doubles.push(birth),
                other => panic!("{} holds an unknown word: {other:?}", path.display()),
            }
        }
        births
    }

    /// Fails the test if two copies were ever alive at the same time; gives the births otherwise.
    pub(crate) fn never_two(path: &Path) -> Vec<Birth> {
        let births = Self::read(path);
        assert!(
            births.doubles.is_empty(),
            "two copies were alive at once; these found another one: {:?}",
            births.doubles
        );
        births.born
    }
}
