//! The terminal that a command in a container is given: ours, in raw mode, so that every key reaches the
//! command.

use std::io::{self, IsTerminal, stdin, stdout};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::container::attach::Size;

/// Of terminals that do not know their own size.
const USUAL: Size = Size { rows: 24, columns: 80 };

/// Whether there is a terminal to be passed on.
pub(super) fn is_there() -> bool {
    stdin().is_terminal() && stdout().is_terminal()
}

/// Its size now.
pub(super) fn size() -> Size {
    let size = tcgetwinsize(stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
    size.map_or(USUAL, |size| Size { rows: size.ws_row, columns: size.ws_col })
}

/// The terminal is in raw mode for as long as this lives.
pub(super) struct RawMode(Termios);

impl RawMode {
    /// Enters it.
    pub(super) fn enter() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that was hung up has no mode any more.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0);
    }
}
