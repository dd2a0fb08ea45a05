//! Every mistake that can be made in a container: its place, its words, its hint.

use std::fmt::Write;

use stigmer::manifest::{self, LoadOptions, Severity};

use crate::load;

/// What stands around the lines of the table.
const AROUND: &str = "\
networks: { front: , back: { ipam: { config: [{ subnet: 172.28.0.0/16 }] } } }
volumes: { data: }
components:
  proc: { command: x }
  many: { replicas: 2, container: { image: x } }
";

/// `line:column message | expected | help` of every error.
fn errors(text: &str) -> Vec<String> {
    let Err(report) = load(text) else { return Vec::new() };
    let errors = report.diagnostics.iter().filter(|one| one.severity == Severity::Error);
    errors
        .map(|one| {
            let place = format!("{}:{}", one.line, one.column);
            let text = format!("{place} {} | {} | {}", one.message, one.expected, one.help);
            text.trim_end_matches([' ', '|']).to_owned()
        })
        .collect()
}

/// `STIGMER_UPDATE=1 cargo test --test manifest` writes it anew; then look at what has changed.
#[test]
fn the_table_of_mistakes() {
    let path = crate::root().join("tests/manifest/container_mistakes.txt");
    let table = std::fs::read_to_string(&path).unwrap();
    let (mut found, mut lines) = (String::new(), String::new());
    for line in table.lines() {
        let is_answer = line.starts_with(' ');
        if !is_answer {
            writeln!(found, "{line}").unwrap();
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if !is_answer {
            writeln!(lines, "      {line}").unwrap();
            continue;
        }
        if lines.is_empty() {
            continue;
        }
        // Without an image of its own a container gets one.
        let image = if lines.contains("  image") { "x-no: image" } else { "image: x" };
        let text = format!("{AROUND}  web:\n    container:\n      {image}\n{lines}");
        writeln!(found, "    {}", errors(&text).join("\n    ")).unwrap();
        lines.clear();
    }
    if std::env::var_os("STIGMER_UPDATE").is_some() {
        std::fs::write(&path, &found).unwrap();
    } else {
        assert_eq!(found, table);
    }
}

/// The one error.
#[track_caller]
fn one(text: &str) -> String {
    let errors = errors(text);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors.into_iter().next().unwrap()
}

/// The one error of a component with an image and these lines beside it; they begin at line 4, column 5.
fn beside(lines: &str) -> String {
    let lines = lines.replace('\n', "\n    ");
    one(&format!("components:\n  web:\n    container: {{ image: x }}\n    {lines}\n"))
}

#[test]
fn keys_of_processes_beside_a_container() {
    let not_here = |key: &str| {
        format!("4:5 `web` is a container, and `{key}` here is for processes | one of the two")
    };
    for (key, value, help) in [
        ("command", "x", "to replace the image's command, write it below `container:`"),
        ("working_dir", "/", "write it below `container:`"),
        ("user", "root", "write it below `container:`"),
        ("group", "root", "write `user: \"USER:GROUP\"` below `container:`"),
        ("umask", "0022", "take it out: what runs in the image sets its own"),
        ("nice", "3", "take it out; `cpu_shares` below `container:` gives a weight"),
        ("rlimits", "{ nofile: 3 }", "write `ulimits` below `container:`"),
    ] {
        assert_eq!(beside(&format!("{key}: {value}")), format!("{} | {help}", not_here(key)));
    }
    assert_eq!(
        beside("external: true"),
        "3:5 `web` is external and has `container` | one of the two | take out `container` or `external`: others start it"
    );
    assert_eq!(
        beside("ports: [80]"),
        "4:5 `web` is a container in a network of its own | `ports` below `container:` | a port is published there, as `ports: [\"8080:80\"]`"
    );
    assert!(beside("ports: ['80:80']").starts_with("4:13 an item of `ports` is the text `80:80`"));
    // Not where they come from the defaults.
    let text = "defaults: { user: 0, umask: 0022, rlimits: { nofile: 3 } }\ncomponents: { a: { container: { image: x } } }";
    assert!(load(text).is_ok());
}

#[test]
fn keys_of_services_in_a_component() {
    assert_eq!(
        beside("image: y"),
        "4:5 `image` is a key of containers |  | put it below `container:`"
    );
    assert_eq!(
        beside("volumes: []"),
        "4:5 `volumes` is a key of containers |  | put it below `container:`"
    );
    assert!(beside("container_name: y").contains("the container is named PROJECT.COMPONENT"));
    assert!(beside("logging: {}").contains("write `logs` in the component"));
    assert!(beside("healthchek: {}").contains("unknown key `healthchek`"));
    let without = one("components: { web: { command: x, image: y } }");
    assert_eq!(without, "1:34 `image` is a key of containers |  | put it below `container:`");
    let in_defaults = one("defaults: { image: y }\ncomponents: { web: { command: x } }");
    assert_eq!(in_defaults, "1:13 `image` is a key of containers |  | put it below `container:`");
    let deep =
        one("defaults: { container: { restart: always } }\ncomponents: { web: { command: x } }");
    assert!(deep.starts_with("1:26 `restart` is not written below `container`"), "{deep}");
    for (key, help) in [
        ("version: '3'", "take it out: a manifest has no version"),
        ("secrets: {}", "a secret is named where it is used"),
        ("configs: {}", "mount a file"),
        ("services: {}", "did you mean `components`?"),
    ] {
        let found = one(&format!("{key}\ncomponents: {{ web: {{ command: x }} }}"));
        assert!(found.starts_with("1:1 unknown key `") && found.contains(help), "{found}");
    }
}

#[test]
fn images_that_are_missing_or_are_called_alike() {
    let empty = one("components: { web: { container: {} } }");
    assert_eq!(
        empty,
        "1:22 `web` has no image | `image` or `build` | add `image: name:tag`, or `build: folder`"
    );
    // What is wrong already is not missing too.
    let wrong = one("components: { web: { container: { imag: x } } }");
    assert_eq!(wrong, "1:35 unknown key `imag` |  | did you mean `image`?");
    let alike =
        one("components: { a-b: { container: { build: . } }, a_b: { container: { build: . } } }");
    assert_eq!(
        alike,
        "1:69 the image would be called shop-a-b, as that of `a-b` is | an `image` of its own | add `image: name`"
    );
}

#[test]
fn replicas_that_want_the_same() {
    let container = |lines: &str| {
        one(&format!(
            "networks: {{ n: {{ ipam: {{ config: [{{ subnet: 10.0.0.0/8 }}] }} }} }}\ncomponents: {{ a: {{ replicas: 3, container: {{ image: x, {lines} }} }} }}"
        ))
    };
    assert_eq!(
        container("ports: ['127.0.0.1:8080:80']"),
        "2:64 3 replicas cannot all have port 8080 of the host | no fixed port of the host | write \"80\": the engine chooses a port for each; or a range such as \"8080-8082:80\""
    );
    assert_eq!(
        container("networks: { n: { ipv4_address: 10.0.0.9 } }"),
        "2:87 3 replicas cannot all have the address 10.0.0.9 | no fixed address | take it out: names find them all"
    );
}

#[test]
fn ports_that_two_components_want() {
    let two =
        |first: &str, second: &str| errors(&format!("components:\n  a: {first}\n  b: {second}\n"));
    let published = |port: &str| format!("{{ container: {{ image: x, ports: ['{port}'] }} }}");
    let process = "{ command: x, ports: [80] }";
    assert_eq!(
        two(process, &published("80:1")),
        [
            "3:39 port 80 belongs to `a` already | a port of its own | it stands at line 2, column 28"
        ]
    );
    for (first, second) in [
        ("80:1", "80:2"),
        ("127.0.0.1:80:1", "127.0.0.1:80:1"),
        ("127.0.0.1:80:1", "0.0.0.0:80:1"),
        ("0.0.0.0:80:1", "127.0.0.1:80:1"),
        ("[::1]:80:1", "[::]:80:1"),
        ("[::]:80:1", "80:1"),
        ("80:1", "[::1]:80:1"),
        ("79-81:79-81", "80:1"),
    ] {
        let found = two(&published(first), &published(second));
        assert!(
            found.len() == 1 && found[0].contains("port 80 belongs to `a`"),
            "{first} {second}: {found:?}"
        );
    }
    let udp = two(&published("53:53/udp"), &published("53:1/udp"));
    assert!(udp[0].contains("port 53/udp belongs to `a` already"), "{udp:?}");
    for (first, second) in [
        ("80:1/udp", "80:1"),
        ("127.0.0.1:80:1", "127.0.0.2:80:1"),
        ("0.0.0.0:80:1", "[::]:80:1"),
        ("80-90:1", "80-90:1"),
        ("1", "1"),
    ] {
        assert_eq!(two(&published(first), &published(second)), [""; 0], "{first} {second}");
    }
}

#[test]
fn probes_of_what_is_no_container() {
    let expected = "this component is no container | another kind of probe | a program of this machine is looked at by `process: {}`";
    let process = one("components: { a: { command: x, probes: { liveness: { container: {} } } } }");
    assert_eq!(process, format!("1:54 {expected}"));
    let inside = one(
        "components: { a: { external: true, probes: { readiness: { all: [{ container: {} }] } } } }",
    );
    assert_eq!(inside, format!("1:67 {expected}"));
}

#[test]
fn stops_that_contradict() {
    let stop = |lines: &str| {
        one(&format!(
            "components: {{ a: {{ stop: {{ signal: INT, timeout: 3s }}, container: {{ image: x, {lines} }} }} }}"
        ))
    };
    assert_eq!(
        stop("stop_signal: TERM"),
        "1:92 `stop.signal` of the component says something else | the same, or one of the two | take one of them out"
    );
    assert!(
        stop("stop_grace_period: 4s")
            .contains("`stop.timeout` of the component says something else")
    );
}

/// The one error of networks and volumes with these entries.
fn top(networks: &str, volumes: &str) -> String {
    one(&format!(
        "networks: {{ {networks} }}\nvolumes: {{ {volumes} }}\ncomponents: {{ a: {{ container: {{ image: x }} }} }}"
    ))
}

#[test]
fn networks_and_volumes() {
    for (networks, expected) in [
        (
            "n: { external: true, driver: x }",
            "1:34 `n` is external and has `driver` | one of the two | take out `driver` or `external`: others make it",
        ),
        (
            "n: { driver: host }",
            "1:26 `host` is no network that can be named | a network of its own | write `network_mode: host` in the container instead",
        ),
        (
            "n: { external: true, name: none }",
            "1:40 `none` is no network that can be named | a network of its own | write `network_mode: none` in the container instead",
        ),
        (
            "'a b': {}",
            "1:13 `a b` cannot be a name here | letters, digits, `_`, `.` and `-`, the first a letter or a digit",
        ),
        (
            "n: { name: -x }",
            "1:24 `-x` cannot be a name here | letters, digits, `_`, `.` and `-`, the first a letter or a digit",
        ),
        (
            "a: { name: x }, b: { name: x }",
            "1:29 `a` has the same name | a name of its own | it stands at line 1, column 13",
        ),
        (
            "n: { ipam: { config: [{ subnet: 10.0.0.0 }] } }",
            "1:45 `10.0.0.0` is no subnet | an address with the length of its prefix, such as 172.28.0.0/16",
        ),
        (
            "n: { ipam: { config: [{ subnet: 10.0.0.0/8, gateway: 11.0.0.1 }] } }",
            "1:66 `11.0.0.1` is no address of the subnet | an address in it",
        ),
        (
            "n: { ipam: { config: [{ subnet: 10.0.0.0/8, ip_range: x }] } }",
            "1:57 `ip_range` of Compose is not supported |  | take it out",
        ),
        ("n: { ipam: { driver: x } }", "1:34 `driver` is the text `x` | default"),
        (
            "n: { labels: [stigmer.project=x] }",
            "1:27 labels that begin with `stigmer.` say whose a container is | another name",
        ),
        ("n: { internl: true }", "1:18 unknown key `internl` |  | did you mean `internal`?"),
        ("n: x", "1:16 `n` is the text `x` | a map, or nothing"),
    ] {
        assert_eq!(top(networks, ""), expected, "{networks}");
    }
    for (volumes, expected) in [
        (
            "v: { external: true, labels: [a] }",
            "2:33 `v` is external and has `labels` | one of the two | take out `labels` or `external`: others make it",
        ),
        ("v: { external: { name: x } }", "2:17 `external` is a map | true or false"),
        (
            "a: { name: x }, b: { name: x, external: true }",
            "2:28 `a` has the same name | a name of its own | it stands at line 2, column 12",
        ),
        ("v: { diver: x }", "2:17 unknown key `diver` |  | did you mean `driver`?"),
    ] {
        assert_eq!(top("", volumes), expected, "{volumes}");
    }
    // After a mistake in the declarations nothing is said of who uses them.
    let users = "components: { a: { container: { image: x, networks: [n], volumes: ['v:/x'] } } }";
    assert!(
        one(&format!("networks: {{ n: {{ x: y }} }}\nvolumes: {{ v: }}\n{users}"))
            .starts_with("1:18")
    );
    assert!(one(&format!("networks: {{ n: }}\nvolumes: {{ v: 3 }}\n{users}")).starts_with("2:15"));
}

#[test]
fn values_of_variables_are_not_shown() {
    let mut options = LoadOptions::default();
    options.variables.insert("SECRET".into(), "hunter2".into());
    options.variables.insert("SEVERAL".into(), "hunter3:hunter4".into());
    let text = "\
networks: { n: { name: \"-${SECRET}\", ipam: { config: [{ subnet: \"${SECRET}\" }] } } }
components:
  a:
    container:
      image: \"X${SECRET}\"
      ports: [\"80:${SECRET}\", \"${SEVERAL}\", \"${SECRET}:80:80\"]
      volumes: [\"${SECRET}:/x\", \"./y:${SECRET}\", \"./z:/z:${SECRET}\", \"${SEVERAL}\"]
      tmpfs: \"/t:${SECRET}\"
      networks: [\"${SECRET}\"]
      extra_hosts: [\"a=${SECRET}\", \"${SECRET}\"]
      env_file: \"./${SECRET}\"
      security_opt: [\"seccomp=${SECRET}\"]
      devices: [\"/dev/x:${SECRET}\"]
      cap_add: [\"${SECRET}\"]
      mem_limit: \"${SECRET}\"
      ipc: \"${SECRET}\"
  b: { container: { image: x, network_mode: \"container:${SECRET}\", ports: [80] } }
";
    let path = std::path::Path::new("/tmp/shop/stigmer.yaml");
    let report = manifest::load_bytes(path, text.as_bytes(), &options).unwrap_err();
    assert!(report.diagnostics.len() > 15, "{:#?}", report.diagnostics);
    let shown = format!("{:?} {}", report.diagnostics, report.render(false, 200)).to_lowercase();
    assert!(!shown.contains("hunter"), "{}", report.render(false, 200));
    assert!(shown.contains("`80:${secret}` is no port"), "{shown}");
}
