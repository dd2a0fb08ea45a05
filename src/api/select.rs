//! Which instances a selector means. Pure.

use std::path::Path;

use globset::{Glob, GlobMatcher};

use super::v1::Selector;
use crate::model::InstanceId;

/// A selector that cannot be followed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SelectError {
    /// A pattern that is no glob.
    #[error("{pattern} is not a valid pattern: {why}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// Names that mean nobody.
    #[error("no component is named {name}{}", .nearest.as_ref().map_or_else(String::new, |nearest| format!("; did you mean {nearest}?")))]
    Unknown {
        /// The name.
        name: String,
        /// The most similar one.
        nearest: Option<String>,
    },
    /// No project of this name is applied.
    #[error("no project is named {name}; applied are: {known}")]
    Project {
        /// The name.
        name: String,
        /// Those that are.
        known: String,
    },
}

/// A project, as far as selecting goes.
pub type Known<'a> = (&'a str, &'a Path);

/// The projects that a selector means: the one that is named, the one of the manifest, or all.
pub fn projects<'a>(selector: &Selector, known: &[Known<'a>]) -> Result<Vec<&'a str>, SelectError> {
    let all = || known.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    if !selector.project.is_empty() {
        return match known.iter().find(|(name, _)| *name == selector.project) {
            Some((name, _)) => Ok(vec![*name]),
            None => Err(SelectError::Project {
                name: selector.project.clone(),
                known: if known.is_empty() { "none".into() } else { all().join(", ") },
            }),
        };
    }
    if selector.manifest.is_empty() {
        return Ok(all());
    }
    let manifest = Path::new(&selector.manifest);
    Ok(known.iter().filter(|(_, path)| *path == manifest).map(|(name, _)| *name).collect())
}

/// The instances that a selector means, in order. Every name must mean somebody.
pub fn instances<'a>(
    selector: &Selector,
    projects: &[&str],
    all: impl Iterator<Item = &'a InstanceId>,
) -> Result<Vec<InstanceId>, SelectError> {
    let candidates: Vec<&InstanceId> =
        all.filter(|instance| projects.contains(&&*instance.project)).collect();
    if selector.names.is_empty() {
        return Ok(candidates.into_iter().cloned().collect());
    }
    let mut chosen = vec![false; candidates.len()];
    for name in &selector.names {
        let glob = matcher(name)?;
        let mut found = false;
        for (instance, chosen) in candidates.iter().zip(&mut chosen) {
            if means(name, &glob, instance) {
                *chosen = true;
                found = true;
            }
        }
        if !found {
            return Err(SelectError::Unknown {
                name: name.clone(),
                nearest: nearest(name, candidates.iter().copied()),
            });
        }
    }
    let chosen = candidates.into_iter().zip(chosen).filter(|(_, chosen)| *chosen);
    Ok(chosen.map(|(instance, _)| instance.clone()).collect())
}

fn matcher(pattern: &str) -> Result<GlobMatcher, SelectError> {
    Glob::new(pattern).map(|glob| glob.compile_matcher()).map_err(|error| SelectError::Pattern {
        pattern: pattern.to_owned(),
        why: error.kind().to_string(),
    })
}

/// `api` means all its replicas, `api.0` and `api.1` one of them.
fn means(name: &str, glob: &GlobMatcher, instance: &InstanceId) -> bool {
    let replica = format!("{}.{}", instance.component, instance.replica);
    name == &*instance.component
        || name == replica
        || glob.is_match(&*instance.component)
        || glob.is_match(replica)
}

/// The most similar name, if it is similar enough to have been meant.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a InstanceId>) -> Option<String> {
    candidates
        .map(|instance| (strsim::damerau_levenshtein(name, &instance.component), instance))
        .filter(|(distance, _)| *distance <= name.chars().count().div_ceil(3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, instance)| instance.component.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> Vec<InstanceId> {
        vec![
            InstanceId::new("shop", "api", 0),
            InstanceId::new("shop", "api", 1),
            InstanceId::new("shop", "worker", 0),
            InstanceId::new("blog", "api", 0),
        ]
    }

    fn chosen(project: &str, names: &[&str]) -> Result<Vec<String>, SelectError> {
        let selector = Selector {
            project: project.into(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Selector::default()
        };
        let known = [("shop", Path::new("/shop.yaml")), ("blog", Path::new("/blog.yaml"))];
        let projects = projects(&selector, &known)?;
        let fleet = fleet();
        Ok(instances(&selector, &projects, fleet.iter())?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn names_replicas_and_globs() {
        assert_eq!(chosen("", &[]).unwrap().len(), 4);
        assert_eq!(chosen("shop", &["api"]).unwrap(), ["shop/api.0", "shop/api.1"]);
        assert_eq!(chosen("shop", &["api.1"]).unwrap(), ["shop/api.1"]);
        assert_eq!(chosen("", &["a*"]).unwrap().len(), 3);
        assert_eq!(chosen("shop", &["w*", "api.0"]).unwrap(), ["shop/api.0", "shop/worker.0"]);
    }

    #[test]
    fn unknown_names_get_the_nearest() {
        let error = chosen("shop", &["wroker"]).unwrap_err();
        assert_eq!(error.to_string(), "no component is named wroker; did you mean worker?");
        let error = chosen("shop", &["zzz"]).unwrap_err();
        assert_eq!(error.to_string(), "no component is named zzz");
        assert!(matches!(chosen("shop", &["a["]), Err(SelectError::Pattern { .. })));
        let error = chosen("nope", &[]).unwrap_err();
        assert_eq!(error.to_string(), "no project is named nope; applied are: shop, blog");
    }

    #[test]
    fn a_manifest_means_its_project() {
        let known = [("shop", Path::new("/shop.yaml")), ("blog", Path::new("/blog.yaml"))];
        let selector = Selector { manifest: "/blog.yaml".into(), ..Selector::default() };
        assert_eq!(projects(&selector, &known).unwrap(), ["blog"]);
        let selector = Selector { manifest: "/other.yaml".into(), ..Selector::default() };
        assert!(projects(&selector, &known).unwrap().is_empty());
    }
}
