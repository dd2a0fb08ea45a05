//! `posix_spawn`, of which there is no safe binding among the dependencies: the cheapest way to
//! start a process that the C library knows.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use nix::unistd::Pid;

/// A program with its arguments, ready to be executed again and again.
pub(crate) struct Program {
    path: CString,
    arguments: Vec<CString>,
}

impl Program {
    /// The program at `path`, which is also its first argument.
    pub(crate) fn new<'a>(
        path: &Path,
        arguments: impl IntoIterator<Item = &'a OsStr>,
    ) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut all = vec![path.clone()];
        for argument in arguments {
            all.push(CString::new(argument.as_bytes())?);
        }
        Ok(Self { path, arguments: all })
    }

    /// Starts it with an empty environment and whatever descriptors are inherited.
    #[expect(unsafe_code, reason = "posix_spawn has no safe binding among the dependencies")]
    pub(crate) fn spawn(&self) -> io::Result<Pid> {
        let mut arguments: Vec<*mut libc::c_char> =
            self.arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
        arguments.push(ptr::null_mut());
        let environment = [ptr::null_mut()];
        let mut pid: libc::pid_t = 0;
        // SAFETY: path and arguments are strings that end in NUL and outlive the call; both arrays
        // end in a null pointer; posix_spawn writes to none of them, and null is allowed for the
        // file actions and the attributes.
        let error = unsafe {
            libc::posix_spawn(
                &raw mut pid,
                self.path.as_ptr(),
                ptr::null(),
                ptr::null(),
                arguments.as_ptr(),
                environment.as_ptr(),
            )
        };
        if error == 0 { Ok(Pid::from_raw(pid)) } else { Err(io::Error::from_raw_os_error(error)) }
    }
}
