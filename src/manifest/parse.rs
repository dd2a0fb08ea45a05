//! Text to tree, by the events of the parser.
//!
//! Bounds, so that a hostile file costs neither stack nor memory: `DEEPEST` levels, `MOST_VALUES`
//! keys and values of which `MOST_COPIED` may come from aliases. They are looked at as events arrive, before
//! anything is built from them.
//!
//! Failure: a syntax error or a broken bound ends the reading, with what was found until then; a
//! duplicate key, a tag or a key that is no text is noted, and the reading goes on.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::report::{Diagnostic, MOST_DIAGNOSTICS, Place};
use super::syntax::syntax_error;
use super::tree::{Entry, Node, Value, short};

/// Levels of nesting.
pub(super) const DEEPEST: usize = 64;
/// Keys and values in the whole tree: 10,000 components of 80 each.
const MOST_VALUES: usize = 800_000;
/// Values that aliases may add.
const MOST_COPIED: usize = 100_000;

/// The tree of the one document, if there is one; mistakes go to `found`.
pub(super) fn parse(file: &Path, text: &str, found: &mut Vec<Diagnostic>) -> Option<Node> {
    let mut builder = Builder {
        file,
        found,
        open: Vec::new(),
        anchors: HashMap::new(),
        values: 0,
        copied: 0,
        root: None,
        documents: 0,
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let going_on = match event {
            Ok((event, span)) => builder.take(event, span),
            Err(error) => Err(syntax_error(file, text, &error)),
        };
        if let Err(fatal) = going_on {
            builder.found.push(fatal);
            return None;
        }
    }
    builder.root
}

/// A collection whose end has not come yet.
struct Open {
    value: Value,
    start: Place,
    anchor: usize,
    /// The key that waits for its value.
    key: Option<Key>,
    merged: Vec<Node>,
    height: usize,
    size: usize,
}

struct Key {
    text: Box<str>,
    place: Place,
    merge: bool,
}

struct Anchor {
    node: Node,
    size: usize,
    height: usize,
}

struct Builder<'a> {
    file: &'a Path,
    found: &'a mut Vec<Diagnostic>,
    open: Vec<Open>,
    anchors: HashMap<usize, Anchor>,
    values: usize,
    copied: usize,
    root: Option<Node>,
    documents: usize,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Diagnostic> {
        let place = place_of(span);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents == 1 {
                    return Ok(());
                }
                Err(self
                    .error(place, "a second document begins here")
                    .expected("one document")
                    .help("keep each project in a file of its own"))
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = match self.tag(tag.as_deref(), place) {
                    Tagged::Nothing => style == ScalarStyle::Plain,
                    Tagged::Text => false,
                    Tagged::Plain => true,
                };
                if text.contains('\0') {
                    return Err(self.error(place, "this value contains a NUL character"));
                }
                let node = Node::scalar(text, plain, place);
                self.count(1)?;
                self.add(node, anchor, 1, 1)
            }
            Event::Alias(id) => self.alias(id, place),
            Event::SequenceStart(anchor, tag) => {
                self.tag(tag.as_deref(), place);
                self.begin(Value::Sequence(Vec::new()), place, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.tag(tag.as_deref(), place);
                self.begin(Value::Mapping(Vec::new()), place, anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
        }
    }

    fn error(&self, place: Place, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(self.file, place, message)
    }

    fn note(&mut self, diagnostic: Diagnostic) {
        if self.found.len() < MOST_DIAGNOSTICS {
            self.found.push(diagnostic);
        }
    }

    fn count(&mut self, more: usize) -> Result<(), Diagnostic> {
        self.values += more;
        if self.values <= MOST_VALUES {
            return Ok(());
        }
        Err(self
            .error(
                Place::default(),
                format!("the manifest has more than {MOST_VALUES} keys and values"),
            )
            .help("divide it into several projects"))
    }

    fn begin(&mut self, value: Value, start: Place, anchor: usize) -> Result<(), Diagnostic> {
        if self.open.len() >= DEEPEST {
            return Err(self.error(start, format!("the nesting is deeper than {DEEPEST} levels")));
        }
        self.count(1)?;
        self.open.push(Open {
            value,
            start,
            anchor,
            key: None,
            merged: Vec::new(),
            height: 1,
            size: 1,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Diagnostic> {
        let Some(mut open) = self.open.pop() else { return Ok(()) };
        if let Value::Mapping(entries) = &mut open.value {
            self.without_duplicates(entries);
            merge_into(entries, std::mem::take(&mut open.merged));
        }
        // Most maps are small, and a vector begins with room for more.
        match &mut open.value {
            Value::Sequence(items) => items.shrink_to_fit(),
            Value::Mapping(entries) => entries.shrink_to_fit(),
            Value::Scalar { .. } => {}
        }
        let node = Node { value: open.value, place: open.start };
        self.add(node, open.anchor, open.size, open.height)
    }

    fn alias(&mut self, id: usize, place: Place) -> Result<(), Diagnostic> {
        let Some(anchor) = self.anchors.get(&id) else {
            return Err(self.error(place, "this alias stands inside of what it refers to"));
        };
        let (size, height) = (anchor.size, anchor.height);
        self.copied += size;
        if self.copied > MOST_COPIED {
            return Err(self.error(
                place,
                format!("the aliases of this file multiply to more than {MOST_COPIED} values"),
            ));
        }
        self.count(size)?;
        if self.open.len() + height > DEEPEST {
            return Err(self.error(
                place,
                format!("with this alias the nesting is deeper than {DEEPEST} levels"),
            ));
        }
        let Some(anchor) = self.anchors.get(&id) else { return Ok(()) };
        let node = anchor.node.clone();
        self.add(node, 0, size, height)
    }

    /// A finished value goes into the collection that is open.
    fn add(
        &mut self,
        node: Node,
        anchor: usize,
        size: usize,
        height: usize,
    ) -> Result<(), Diagnostic> {
        if anchor != 0 {
            // The copy that is kept for the aliases counts too.
            self.count(size)?;
            self.anchors.insert(anchor, Anchor { node: node.clone(), size, height });
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.size += size;
        open.height = open.height.max(height + 1);
        match &mut open.value {
            Value::Sequence(items) => items.push(node),
            Value::Scalar { .. } => {}
            Value::Mapping(entries) => match open.key.take() {
                None => match node.value {
                    Value::Scalar { text, plain } => {
                        let merge = plain && &*text == "<<";
                        open.key = Some(Key { text, place: node.place, merge });
                    }
                    Value::Sequence(_) | Value::Mapping(_) => {
                        open.key = Some(Key { text: "".into(), place: node.place, merge: false });
                        let error = self
                            .error(node.place, "a key that is no text")
                            .expected("a name")
                            .help("if it is a value that begins with `{` or `[`, put it in quotes");
                        self.note(error);
                    }
                },
                Some(key) if key.merge => {
                    let error = merge(&mut open.merged, node);
                    if let Some(place) = error {
                        let error = self
                            .error(place, "`<<` merges what is not a map")
                            .expected("an alias of a map, such as `<<: *base`, or a list of them");
                        self.note(error);
                    }
                }
                Some(key) => entries.push(Entry { key: key.text, place: key.place, node }),
            },
        }
        Ok(())
    }

    /// Of entries with one key, the first stays. Found by sorting, which needs little memory.
    fn without_duplicates(&mut self, entries: &mut Vec<Entry>) {
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_by(|a, b| entries[*a].key.cmp(&entries[*b].key));
        let mut repeated = Vec::new();
        let mut first = 0;
        for pair in order.windows(2) {
            let (one, other) = (pair[0], pair[1]);
            if entries[one].key != entries[other].key {
                continue;
            }
            if repeated.last() != Some(&one) {
                first = one;
            }
            repeated.push(other);
            let (line, column) = (entries[first].place.line, entries[first].place.column);
            let entry = &entries[other];
            let error = self
                .error(entry.place, format!("duplicate key `{}`", short(&entry.key)))
                .help(format!("it stands already at line {line}, column {column}"));
            self.note(error);
        }
        if !repeated.is_empty() {
            let repeated: HashSet<usize> = repeated.into_iter().collect();
            let mut index = 0;
            entries.retain(|_| {
                index += 1;
                !repeated.contains(&(index - 1))
            });
        }
    }

    fn tag(&mut self, tag: Option<&Tag>, place: Place) -> Tagged {
        let Some(tag) = tag else { return Tagged::Nothing };
        if tag.is_yaml_core_schema() {
            match tag.suffix.as_str() {
                "str" => return Tagged::Text,
                "int" | "float" | "bool" | "null" => return Tagged::Plain,
                "map" | "seq" => return Tagged::Nothing,
                _ => {}
            }
        } else if tag.handle == "!" && tag.suffix.is_empty() {
            return Tagged::Text;
        }
        let error = self
            .error(place, format!("the tag `{}` means nothing here", short(&tag.to_string())))
            .help("take it out; a text that begins with `!` needs quotes");
        self.note(error);
        Tagged::Nothing
    }
}

/// What a tag says about a scalar.
enum Tagged {
    Nothing,
    Text,
    Plain,
}

/// What stands in the map itself outranks what is merged into it; the first merged wins.
fn merge_into(entries: &mut Vec<Entry>, merged: Vec<Node>) {
    if merged.is_empty() {
        return;
    }
    let mut known: HashSet<Box<str>> = entries.iter().map(|entry| entry.key.clone()).collect();
    for node in merged {
        let Value::Mapping(more) = node.value else { continue };
        entries.extend(more.into_iter().filter(|entry| known.insert(entry.key.clone())));
    }
}

/// Collects what is merged; the place of what cannot be.
fn merge(merged: &mut Vec<Node>, node: Node) -> Option<Place> {
    match node.value {
        Value::Mapping(_) => {
            merged.push(node);
            None
        }
        Value::Sequence(items) => {
            let mut wrong = None;
            for item in items {
                match item.value {
                    Value::Mapping(_) => merged.push(item),
                    Value::Scalar { .. } | Value::Sequence(_) => wrong = Some(item.place),
                }
            }
            wrong
        }
        Value::Scalar { .. } => Some(node.place),
    }
}

fn place_of(span: Span) -> Place {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX - 1);
    let length = if span.start.line() == span.end.line() {
        number(span.end.col().saturating_sub(span.start.col()))
    } else {
        u32::MAX
    };
    Place { line: number(span.start.line()), column: number(span.start.col()) + 1, length }
}
