//! The context of a build as a tar archive, without what `.dockerignore` takes out.
//!
//! The rules of `.dockerignore` are those of Docker: a pattern per line, `#` comments, `!` takes back what
//! an earlier line took out, `**` crosses folders, a pattern that matches a folder matches all below it, and
//! the last line that matches decides. The Dockerfile and `.dockerignore` itself are always sent.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use super::INLINE;
use crate::model::container::BuildSpec;

/// Writes the context of a build into `out`.
pub(super) fn pack(spec: &BuildSpec, dockerfile: &str, out: &mut impl Write) -> io::Result<()> {
    let ignored = Ignored::read(&spec.context)?;
    let mut archive = tar::Builder::new(out);
    archive.follow_symlinks(false);
    if let Some(text) = &spec.dockerfile_inline {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append_data(&mut header, INLINE, text.as_bytes())?;
    }
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let mut names: Vec<PathBuf> = fs::read_dir(spec.context.join(&folder))?
            .map(|entry| entry.map(|entry| folder.join(entry.file_name())))
            .collect::<io::Result<_>>()?;
        // The same folder gives the same archive, which is what the engine's cache goes by.
        names.sort();
        for name in names {
            let path = spec.context.join(&name);
            let is_folder = fs::symlink_metadata(&path)?.is_dir();
            let is_needed = name == Path::new(dockerfile) || name == Path::new(".dockerignore");
            let is_out = !is_needed && ignored.takes_out(&name);
            if is_folder {
                if !is_out {
                    archive.append_dir(&name, &path)?;
                }
                // Something below it may be taken back, or be the Dockerfile.
                if !is_out || ignored.takes_back || Path::new(dockerfile).starts_with(&name) {
                    folders.push(name);
                }
            } else if !is_out {
                archive.append_path_with_name(&path, &name)?;
            }
        }
    }
    archive.finish()
}

/// The rules of a `.dockerignore`.
struct Ignored {
    rules: Vec<(GlobMatcher, bool)>,
    /// Whether any rule takes something back.
    takes_back: bool,
}

impl Ignored {
    fn read(context: &Path) -> io::Result<Self> {
        match fs::read_to_string(context.join(".dockerignore")) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::parse(""),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> io::Result<Self> {
        let mut rules = Vec::new();
        for line in text.lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (pattern, takes_out) = match line.strip_prefix('!') {
                Some(pattern) => (pattern.trim(), false),
                None => (line, true),
            };
            let pattern: PathBuf = Path::new(pattern)
                .components()
                .filter(|part| matches!(part, std::path::Component::Normal(_)))
                .collect();
            let glob = GlobBuilder::new(&pattern.to_string_lossy())
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|error| io::Error::other(format!(".dockerignore: {error}")))?;
            rules.push((glob.compile_matcher(), takes_out));
        }
        let takes_back = rules.iter().any(|(_, takes_out)| !takes_out);
        Ok(Self { rules, takes_back })
    }

    fn takes_out(&self, name: &Path) -> bool {
        let matching = self.rules.iter().rev().find(|(rule, _)| {
            name.ancestors().any(|part| !part.as_os_str().is_empty() && rule.is_match(part))
        });
        matching.is_some_and(|(_, takes_out)| *takes_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(spec: &BuildSpec, dockerfile: &str) -> Vec<String> {
        let mut bytes = Vec::new();
        pack(spec, dockerfile, &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap();
        entries.map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_rules_of_dockerignore() {
        let scratch = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = scratch.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("Dockerfile", "FROM scratch");
        write(
            ".dockerignore",
            "# a comment\ntarget\n*.log\n!keep.log\n**/tmp\nDockerfile\n/docs/*\n!docs/a\n",
        );
        for name in
            ["a", "b.log", "keep.log", "target/x", "src/tmp/y", "src/b.log", "docs/a", "docs/b"]
        {
            write(name, name);
        }
        let spec = BuildSpec { context: scratch.path().into(), ..BuildSpec::default() };
        let mut names = names(&spec, "Dockerfile");
        names.retain(|name| !name.ends_with('/'));
        names.sort();
        let expected =
            [".dockerignore", "Dockerfile", "a", "docs", "docs/a", "keep.log", "src", "src/b.log"];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_dockerfile_of_the_manifest_is_in_it_and_links_are_links() {
        let scratch = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", scratch.path().join("link")).unwrap();
        let spec = BuildSpec {
            context: scratch.path().into(),
            dockerfile_inline: Some("FROM scratch\n".into()),
            ..BuildSpec::default()
        };
        assert_eq!(names(&spec, INLINE), [INLINE, "link"]);
        let mut bytes = Vec::new();
        pack(&spec, INLINE, &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let link = archive.entries().unwrap().nth(1).unwrap().unwrap();
        assert_eq!(link.header().entry_type(), tar::EntryType::Symlink);
    }
}
