//! Every key of a container, in every form that the Compose specification knows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stigmer::manifest::{self, LoadOptions};
use stigmer::model::container::{
    AttachmentSpec, BuildSpec, ContainerSpec, DeviceSpec, HealthTest, HealthcheckSpec, MountSource,
    MountSpec, NetworkDeclaration, NetworkSpec, PortMapping, Protocol, PullPolicy, ResourceSpec,
    VolumeSpec,
};
use stigmer::model::spec::{
    Check, ComponentSpec, Condition, EnvValue, LimitSpec, ProbeSpec, SecretRef, StopSpec, Workload,
};

use crate::load;

/// The components of a manifest, after it was written and loaded again.
fn components(text: &str) -> BTreeMap<String, ComponentSpec> {
    let loaded = load(text).unwrap_or_else(|report| panic!("{}", report.render(false, 100)));
    let written = manifest::to_yaml(&loaded.project);
    let again =
        load(&written).unwrap_or_else(|report| panic!("{written}\n{}", report.render(false, 100)));
    assert_eq!(again.project, loaded.project, "{written}");
    loaded
        .project
        .components
        .into_iter()
        .map(|(name, spec)| (name, Arc::unwrap_or_clone(spec)))
        .collect()
}

fn of(spec: &ComponentSpec) -> ContainerSpec {
    match &spec.workload {
        Workload::Container(container) => (**container).clone(),
        Workload::Process(_) | Workload::External => panic!("no container"),
    }
}

const TOP: &str = "\
networks:
  front:
  back: { ipam: { driver: default, config: [{ subnet: 172.28.0.0/16, gateway: 172.28.0.1 }, { subnet: 'fd00::/8' }] } }
volumes:
  data:
  logs: {}
";

/// A component with these lines below `container`, besides its image.
fn component(lines: &str) -> ComponentSpec {
    let lines = lines.replace('\n', "\n      ");
    let text = format!("{TOP}components:\n  web:\n    container:\n      image: x\n      {lines}\n");
    components(&text).into_values().next().unwrap()
}

fn container(lines: &str) -> ContainerSpec {
    of(&component(lines))
}

fn network(name: &str) -> NetworkDeclaration {
    NetworkDeclaration {
        name: name.into(),
        external: false,
        driver: None,
        driver_opts: BTreeMap::new(),
        internal: false,
        attachable: false,
        enable_ipv6: false,
        subnets: Vec::new(),
        labels: BTreeMap::new(),
    }
}

fn volume(name: &str) -> VolumeSpec {
    VolumeSpec {
        name: name.into(),
        external: false,
        driver: None,
        driver_opts: BTreeMap::new(),
        labels: BTreeMap::new(),
    }
}

fn attached(name: &str) -> AttachmentSpec {
    AttachmentSpec {
        network: network(name),
        aliases: vec!["web".into()],
        ipv4_address: None,
        ipv6_address: None,
    }
}

fn strings<const N: usize>(all: [&str; N]) -> Vec<String> {
    all.map(Into::into).to_vec()
}

fn pairs<const N: usize>(all: [(&str, &str); N]) -> BTreeMap<String, String> {
    all.map(|(name, value)| (name.into(), value.into())).into()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn defaults_of_everything() {
    let spec = component("");
    let expected = ContainerSpec {
        directory: "/tmp/shop".into(),
        image: "x".into(),
        network: NetworkSpec::Networks(vec![attached("shop_default")]),
        ..ContainerSpec::default()
    };
    assert_eq!(of(&spec), expected);
    // An unhealthy container is restarted without a word about it.
    let liveness = ProbeSpec {
        check: Check::Container,
        interval: seconds(10),
        timeout: seconds(3),
        failure_threshold: 3,
        success_threshold: 1,
        initial_delay: seconds(0),
    };
    assert_eq!(spec.probes.liveness.as_deref(), Some(&liveness));
    assert_eq!((spec.probes.startup, spec.probes.readiness), (None, None));
    assert_eq!((spec.stop, spec.ports), (StopSpec::default(), Vec::new()));
}

#[test]
fn images_and_how_they_are_built() {
    let image = |text: &str| {
        let text = format!("project: My-Shop\ncomponents: {{ web: {{ container: {text} }} }}");
        of(&components(&text)["web"])
    };
    let given =
        image("{ image: 'registry:5000/a/b:1.10', pull_policy: always, platform: linux/arm64/v8 }");
    assert_eq!(given.image, "registry:5000/a/b:1.10");
    assert_eq!(given.pull_policy, PullPolicy::Always);
    assert_eq!(given.platform.as_deref(), Some("linux/arm64/v8"));
    for (word, policy) in [
        ("missing", PullPolicy::Missing),
        ("if_not_present", PullPolicy::Missing),
        ("never", PullPolicy::Never),
    ] {
        assert_eq!(image(&format!("{{ image: x, pull_policy: {word} }}")).pull_policy, policy);
    }

    let built = image("{ build: ., pull_policy: build }");
    assert_eq!((built.image.as_str(), built.pull_policy), ("my-shop-web", PullPolicy::Build));
    let plain = BuildSpec { context: "/tmp/shop".into(), ..BuildSpec::default() };
    assert_eq!(built.build, Some(plain.clone()));
    assert_eq!(image("{ image: y, build: { dockerfile: x/../Dockerfile.prod } }").image, "y");
    let full = image(
        "{ build: { context: sub, dockerfile: D, args: [A=1, 'B=x=y'], target: t, labels: { l: 1.10, m: }, network: host, no_cache: true, pull: true } }",
    );
    let expected = BuildSpec {
        context: "/tmp/shop/sub".into(),
        dockerfile: Some("D".into()),
        dockerfile_inline: None,
        args: pairs([("A", "1"), ("B", "x=y")]),
        target: Some("t".into()),
        labels: pairs([("l", "1.10"), ("m", "")]),
        network: Some("host".into()),
        no_cache: true,
        pull: true,
    };
    assert_eq!(full.build, Some(expected));
    let inline = image("{ build: { dockerfile_inline: \"FROM x\\nRUN y\\n\", args: { N: 3 } } }");
    let inline = inline.build.unwrap();
    assert_eq!(inline.dockerfile_inline.as_deref(), Some("FROM x\nRUN y\n"));
    assert_eq!((inline.context, inline.args), (plain.context, pairs([("N", "3")])));
}

#[test]
fn commands_are_divided_as_by_a_shell() {
    let spec = |lines: &str| {
        let spec = container(lines);
        (spec.entrypoint, spec.command)
    };
    assert_eq!(spec("command: a 'b c' \"d $x\""), (None, Some(strings(["a", "b c", "d $x"]))));
    assert_eq!(spec("command: [a, 1.10, true]"), (None, Some(strings(["a", "1.10", "true"]))));
    assert_eq!(
        spec("entrypoint: /run -x\ncommand: 80"),
        (Some(strings(["/run", "-x"])), Some(strings(["80"])))
    );
    // Nothing leaves it as it is in the image, an empty one clears it.
    assert_eq!(spec("entrypoint:\ncommand: null"), (None, None));
    assert_eq!(spec("entrypoint: []\ncommand: ''"), (Some(vec![]), Some(vec![])));
}

#[test]
fn the_environment_in_its_order_of_ranks() {
    let plain = |text: &str| EnvValue::Plain(text.into());
    let env =
        container("environment: { A: 1.10, B: true, S: { secret: { file: x } } }").environment;
    let secret = EnvValue::Secret(SecretRef::File("/tmp/shop/x".into()));
    let expected = [("A", plain("1.10")), ("B", plain("true")), ("S", secret)];
    assert_eq!(env, expected.map(|(name, value)| (name.to_owned(), value)).into());
    let both = |key: &str| container(&format!("{key}: ['A=b=c', B=]")).environment;
    assert_eq!(both("env"), both("environment"));
    assert_eq!(both("env")["A"], plain("b=c"));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stigmer.yaml");
    for (file, text) in [("one.env", "A=file\nB=file\nC=file\n"), ("two.env", "B=two\nC=two\n")] {
        fs::write(folder.path().join(file), text).unwrap();
    }
    let text = "\
defaults:
  env: { D: defaults }
  container: { environment: [E=defaults, F=defaults] }
components:
  web:
    env_file: one.env
    env: { C: env, E: env, HERE: }
    container:
      image: x
      env_file: [{ path: two.env }, { path: absent.env, required: false }]
      environment: { F: own, THERE: , THIS: }
      build: { args: [BUILD] }
";
    fs::write(&path, text).unwrap();
    let names = ["HERE", "THERE", "THIS", "BUILD"].map(ToOwned::to_owned);
    assert_eq!(manifest::variables_named(&path), BTreeSet::from(names.clone()));
    let options = LoadOptions {
        variables: names.map(|name| (name.clone(), format!("of {name}"))).into(),
        ..LoadOptions::default()
    };
    let loaded = manifest::load(&path, &options)
        .unwrap_or_else(|report| panic!("{}", report.render(false, 100)));
    assert_eq!(loaded.watched.len(), 3);
    let spec = of(&loaded.project.components["web"]);
    let found: Vec<String> = spec
        .environment
        .iter()
        .map(|(name, value)| match value {
            EnvValue::Plain(text) => format!("{name}={text}"),
            EnvValue::Secret(_) => panic!(),
        })
        .collect();
    let expected = [
        "A=file",
        "B=two",
        "C=env",
        "D=defaults",
        "E=defaults",
        "F=own",
        "HERE=of HERE",
        "THERE=of THERE",
        "THIS=of THIS",
    ];
    assert_eq!(found, expected);
    assert_eq!(spec.build.unwrap().args, pairs([("BUILD", "of BUILD")]));
}

#[test]
fn published_ports() {
    let mapping = |target, published: Option<u16>| PortMapping {
        target,
        published,
        published_end: None,
        host_ip: None,
        protocol: Protocol::Tcp,
    };
    let spec = component(
        "ports: [80, '8080:81', '127.0.0.1:53:53/udp', '9000-9001:90-91', '7000-7010:70', { target: 1, published: 2, host_ip: '::1', protocol: sctp, name: n, app_protocol: http, mode: host }, { target: 3, published: '4-5' }, { target: 6 }]",
    );
    let expected = [
        mapping(80, None),
        mapping(81, Some(8080)),
        PortMapping {
            host_ip: Some("127.0.0.1".into()),
            protocol: Protocol::Udp,
            ..mapping(53, Some(53))
        },
        mapping(90, Some(9000)),
        mapping(91, Some(9001)),
        PortMapping { published_end: Some(7010), ..mapping(70, Some(7000)) },
        PortMapping {
            host_ip: Some("::1".into()),
            protocol: Protocol::Sctp,
            ..mapping(1, Some(2))
        },
        PortMapping { published_end: Some(5), ..mapping(3, Some(4)) },
        mapping(6, None),
    ];
    assert_eq!(of(&spec).ports, expected);
    // Those by which it is reached from this machine.
    assert_eq!(spec.ports, [8080, 9000, 9001]);
    let on_host =
        "components: { web: { ports: [80, 81], container: { image: x, network_mode: host } } }";
    assert_eq!(components(on_host)["web"].ports, [80, 81]);
    // Others are not in each other's way.
    let apart = "components:\n  a: { container: { image: x, ports: ['127.0.0.1:80:80', '0.0.0.0:81:81'] } }\n  b: { container: { image: x, ports: ['127.0.0.2:80:80', '[::]:81:81', '80:80/udp', '82-83:1'] } }\n  c: { command: x, ports: [82] }\n  d: { replicas: 2, container: { image: x, ports: ['90-91:80', 80] } }\n";
    assert_eq!(components(apart).len(), 4);
}

fn bind(path: &str) -> MountSource {
    MountSource::Bind {
        path: path.into(),
        create_host_path: true,
        propagation: None,
        selinux: None,
    }
}

#[test]
fn what_is_mounted() {
    let home = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().dir;
    let mounts = |lines: &str| container(lines).volumes;
    let writable = |source| MountSpec { source, read_only: false };
    let named =
        |name: &str| MountSource::Volume { volume: volume(name), nocopy: false, subpath: None };
    let short = mounts(
        "volumes: [./a:/a, '../b/.:/b/:ro', /c:/c/./d:rw, '~/e:/e:Z,rshared', '~:/f', data:/g, 'logs:/h:ro,nocopy', /i]",
    );
    let expected = [
        ("/a", writable(bind("/tmp/shop/a"))),
        ("/b", MountSpec { source: bind("/tmp/shop/../b"), read_only: true }),
        ("/c/d", writable(bind("/c"))),
        (
            "/e",
            writable(MountSource::Bind {
                path: home.join("e"),
                create_host_path: true,
                propagation: Some("rshared".into()),
                selinux: Some('Z'),
            }),
        ),
        ("/f", writable(bind(home.to_str().unwrap()))),
        ("/g", writable(named("shop_data"))),
        (
            "/h",
            MountSpec {
                source: MountSource::Volume {
                    volume: volume("shop_logs"),
                    nocopy: true,
                    subpath: None,
                },
                read_only: true,
            },
        ),
        ("/i", writable(MountSource::Anonymous { nocopy: false })),
    ];
    assert_eq!(short, expected.map(|(target, spec)| (target.to_owned(), spec)).into());

    let long = mounts(
        "volumes:\n  - { type: bind, source: ., target: /a, read_only: true, bind: { create_host_path: false, propagation: slave, selinux: z } }\n  - { type: volume, source: data, target: /b, volume: { nocopy: true, subpath: sub } }\n  - { type: volume, target: /c }\n  - { type: tmpfs, target: /d, tmpfs: { size: 64m, mode: 0700 } }\n  - { type: tmpfs, target: /e }",
    );
    let memory = |size, mode, options| writable(MountSource::Tmpfs { size, mode, options });
    let expected = [
        (
            "/a",
            MountSpec {
                source: MountSource::Bind {
                    path: "/tmp/shop".into(),
                    create_host_path: false,
                    propagation: Some("slave".into()),
                    selinux: Some('z'),
                },
                read_only: true,
            },
        ),
        (
            "/b",
            writable(MountSource::Volume {
                volume: volume("shop_data"),
                nocopy: true,
                subpath: Some("sub".into()),
            }),
        ),
        ("/c", writable(MountSource::Anonymous { nocopy: false })),
        ("/d", memory(Some(64 << 20), Some(0o700), vec![])),
        ("/e", memory(None, None, vec![])),
    ];
    assert_eq!(long, expected.map(|(target, spec)| (target.to_owned(), spec)).into());

    assert_eq!(
        mounts("tmpfs: /run"),
        BTreeMap::from([("/run".into(), memory(None, None, vec![]))])
    );
    let several = mounts("tmpfs: ['/a:size=64m,mode=1777,noexec,uid=7', '/b:ro,size=50%']");
    let options = strings(["noexec", "uid=7"]);
    assert_eq!(several["/a"], memory(Some(64 << 20), Some(0o1777), options));
    let source = MountSource::Tmpfs { size: None, mode: None, options: strings(["size=50%"]) };
    assert_eq!(several["/b"], MountSpec { source, read_only: true });
}

#[test]
fn networks_of_a_container() {
    let networks = |lines: &str| container(lines).network;
    let back = || AttachmentSpec {
        network: NetworkDeclaration {
            subnets: vec![
                ("172.28.0.0/16".into(), Some("172.28.0.1".into())),
                ("fd00::/8".into(), None),
            ],
            ..network("shop_back")
        },
        ..attached("")
    };
    let list = networks("networks: [front, default, back]");
    let expected = vec![attached("shop_front"), attached("shop_default"), back()];
    assert_eq!(list, NetworkSpec::Networks(expected));
    // The first in the file is that of the default route.
    let map = networks(
        "networks: { front: , back: { aliases: [api, web], ipv4_address: 172.28.0.9, ipv6_address: 'fd00::0009' } }",
    );
    let second = AttachmentSpec {
        aliases: strings(["web", "api"]),
        ipv4_address: Some("172.28.0.9".into()),
        ipv6_address: Some("fd00::9".into()),
        ..back()
    };
    assert_eq!(map, NetworkSpec::Networks(vec![attached("shop_front"), second]));
    let none = networks("networks: []");
    assert_eq!(none, NetworkSpec::Networks(vec![attached("shop_default")]));
    for mode in ["host", "none", "bridge", "container:other"] {
        let mode_of = networks(&format!("network_mode: {mode}"));
        assert_eq!(mode_of, NetworkSpec::Mode(mode.into()));
    }
    let joined = components(
        "components:\n  a: { container: { image: x, network_mode: 'service:b', ipc: 'service:b', pid: 'service:c' } }\n  b: { container: { image: x, ipc: shareable } }\n  c: { depends_on: { b: healthy }, container: { image: x } }\n",
    );
    let spec = of(&joined["a"]);
    assert_eq!(spec.network, NetworkSpec::Mode("container:shop.b".into()));
    assert_eq!(
        (spec.ipc.as_deref(), spec.pid.as_deref()),
        (Some("container:shop.b"), Some("container:shop.c"))
    );
    // What is shared must be there before.
    let expected = [("b", Condition::Started), ("c", Condition::Started)];
    assert_eq!(joined["a"].depends_on, expected.map(|(name, one)| (name.into(), one)).into());
}

#[test]
fn networks_and_volumes_of_the_project() {
    let text = "\
networks:
  default: { driver: bridge, driver_opts: { mtu: 1400 }, internal: true, attachable: true, enable_ipv6: true, labels: [a=1, b] }
  outside: { external: true }
  other: { external: true, name: their-net }
  named: { name: my-net }
  shop_named: { name: shop_my-net }
volumes:
  data: { driver: local, driver_opts: { type: nfs, o: 'addr=1.2.3.4' }, labels: { a: b } }
  theirs: { external: true }
  more: { external: true, name: of-others }
  mine: { name: my-data }
components:
  web:
    container:
      image: x
      networks: [default, outside, other, named, shop_named]
      volumes: ['data:/a', 'theirs:/b', 'more:/c', 'mine:/d']
";
    let spec = of(&components(text)["web"]);
    let NetworkSpec::Networks(all) = spec.network else { panic!() };
    let all: Vec<NetworkDeclaration> = all.into_iter().map(|one| one.network).collect();
    let external = |name: &str| NetworkDeclaration { external: true, ..network(name) };
    let expected = [
        NetworkDeclaration {
            driver: Some("bridge".into()),
            driver_opts: pairs([("mtu", "1400")]),
            internal: true,
            attachable: true,
            enable_ipv6: true,
            labels: pairs([("a", "1"), ("b", "")]),
            ..network("shop_default")
        },
        external("outside"),
        external("their-net"),
        network("my-net"),
        network("shop_my-net"),
    ];
    assert_eq!(all, expected);
    let volumes: Vec<VolumeSpec> = spec
        .volumes
        .into_values()
        .map(|mount| match mount.source {
            MountSource::Volume { volume, .. } => volume,
            other => panic!("{other:?}"),
        })
        .collect();
    let external = |name: &str| VolumeSpec { external: true, ..volume(name) };
    let expected = [
        VolumeSpec {
            driver: Some("local".into()),
            driver_opts: pairs([("o", "addr=1.2.3.4"), ("type", "nfs")]),
            labels: pairs([("a", "b")]),
            ..volume("shop_data")
        },
        external("theirs"),
        external("of-others"),
        volume("my-data"),
    ];
    assert_eq!(volumes, expected);
}

#[test]
fn what_a_container_may_use() {
    let resources = |lines: &str| container(lines).resources;
    let full = ResourceSpec {
        cpus: Some(1500),
        cpu_shares: Some(512),
        cpuset: Some("0-2,4".into()),
        mem_limit: Some(1 << 30),
        mem_reservation: Some(512 << 20),
        memswap_limit: Some(2 << 30),
        pids_limit: Some(100),
    };
    assert_eq!(
        resources(
            "cpus: 1.5\ncpu_shares: 512\ncpuset: 0-2,4\nmem_limit: 1g\nmem_reservation: 512mb\nmemswap_limit: 2g\npids_limit: 100"
        ),
        full
    );
    let deployed = resources(
        "deploy: { resources: { limits: { cpus: '0.25', memory: 64M, pids: 7 }, reservations: { memory: 32M } } }",
    );
    assert_eq!(
        deployed,
        ResourceSpec {
            cpus: Some(250),
            mem_limit: Some(64 << 20),
            mem_reservation: Some(32 << 20),
            pids_limit: Some(7),
            ..ResourceSpec::default()
        }
    );
    // Both ways to say the same.
    assert_eq!(
        resources("mem_limit: 1g\ndeploy: { resources: { limits: { memory: 1024m } } }").mem_limit,
        Some(1 << 30)
    );
    // Zero is no limit.
    assert_eq!(
        resources("cpus: 0\ncpu_shares: 0\nmem_limit: 0\nmemswap_limit: 0\nmem_reservation: 0b"),
        ResourceSpec::default()
    );
    let unlimited = resources("mem_limit: 100m\nmemswap_limit: -1\npids_limit: -1\ncpuset: 3");
    assert_eq!((unlimited.memswap_limit, unlimited.pids_limit), (Some(-1), Some(-1)));
    assert_eq!(unlimited.cpuset.as_deref(), Some("3"));
    for (text, bytes) in [
        ("64m", 64 << 20),
        ("1.5g", 3 << 29),
        ("64MB", 64_000_000),
        ("64MiB", 64 << 20),
        ("64mib", 64 << 20),
        ("8000k", 8_192_000),
        ("8000kb", 8_192_000),
        ("10000000", 10_000_000),
        ("10000000b", 10_000_000),
        ("1G", 1 << 30),
        ("1t", 1 << 40),
    ] {
        assert_eq!(resources(&format!("mem_limit: {text}")).mem_limit, Some(bytes), "{text}");
        assert_eq!(container(&format!("shm_size: {text}")).shm_size, Some(bytes), "{text}");
    }
    let ulimits = container("ulimits: { nproc: 65535, nofile: { soft: 20000, hard: 40000 }, core: unlimited, memlock: -1, rss: { hard: 64m } }").ulimits;
    let pair = |soft, hard| LimitSpec { soft, hard };
    let expected = [
        ("core", pair(None, None)),
        ("memlock", pair(None, None)),
        ("nofile", pair(Some(20000), Some(40000))),
        ("nproc", pair(Some(65535), Some(65535))),
        ("rss", pair(Some(64 << 20), Some(64 << 20))),
    ];
    assert_eq!(ulimits, expected.map(|(name, limit)| (name.into(), limit)).into());
}

#[test]
fn health_checks() {
    let check = |text: &str| container(&format!("healthcheck: {text}")).healthcheck;
    let plain = |test| HealthcheckSpec {
        test,
        interval: None,
        timeout: None,
        retries: None,
        start_period: None,
        start_interval: None,
    };
    let line = HealthTest::Shell("a || b $x".into());
    assert_eq!(check("{ test: a || b $x }"), Some(plain(line.clone())));
    assert_eq!(check("{ test: [CMD-SHELL, a || b $x] }"), Some(plain(line)));
    let exec = HealthTest::Exec(strings(["a", "1"]));
    assert_eq!(check("{ test: [CMD, a, 1] }"), Some(plain(exec)));
    assert_eq!(check("{ test: [NONE] }"), Some(plain(HealthTest::Disabled)));
    assert_eq!(check("{ disable: true }"), Some(plain(HealthTest::Disabled)));
    assert_eq!(check("{ test: [NONE], disable: true }"), Some(plain(HealthTest::Disabled)));
    assert_eq!(check("{}"), None);
    assert_eq!(check("{ disable: false }"), None);
    let times = check(
        "{ interval: 1m30s, timeout: 10s, retries: 3, start_period: 0, start_interval: 500ms }",
    );
    assert_eq!(
        times,
        Some(HealthcheckSpec {
            interval: Some(seconds(90)),
            timeout: Some(seconds(10)),
            retries: Some(3),
            start_period: Some(seconds(0)),
            start_interval: Some(Duration::from_millis(500)),
            ..plain(HealthTest::Inherit)
        })
    );
}

#[test]
fn the_rest_of_a_container() {
    let spec = container(
        "user: 1000:1000\ngroup_add: [mail, 7]\nworking_dir: /srv\nhostname: web-1\ndomainname: example.com\nlabels: { com.example.a: 1.10, b: }\ncap_add: [CAP_NET_ADMIN, sys_time]\ncap_drop: [ALL]\nprivileged: true\nsecurity_opt: ['no-new-privileges:true', 'seccomp:unconfined', 'label:user:USER']\nread_only: true\nshm_size: 64m\ninit: false\ntty: true\nstdin_open: true\nsysctls: ['net.core.somaxconn=1024']\nipc: private\npid: host\ndevices: [/dev/null, '/dev/zero:/dev/z', '/dev/full:rw', '/dev/random:/dev/r:r', { source: /dev/a }, { source: /dev/b, target: /dev/c, permissions: m }]",
    );
    let device = |source: &str, target: &str, permissions: &str| DeviceSpec {
        source: source.into(),
        target: target.into(),
        permissions: permissions.into(),
    };
    let expected = ContainerSpec {
        directory: "/tmp/shop".into(),
        image: "x".into(),
        network: NetworkSpec::Networks(vec![attached("shop_default")]),
        user: Some("1000:1000".into()),
        group_add: strings(["mail", "7"]),
        working_dir: Some("/srv".into()),
        hostname: Some("web-1".into()),
        domainname: Some("example.com".into()),
        labels: pairs([("b", ""), ("com.example.a", "1.10")]),
        cap_add: strings(["NET_ADMIN", "SYS_TIME"]).into_iter().collect(),
        cap_drop: BTreeSet::from(["ALL".into()]),
        privileged: true,
        security_opt: strings(["no-new-privileges:true", "seccomp=unconfined", "label:user:USER"]),
        read_only: true,
        shm_size: Some(64 << 20),
        init: Some(false),
        tty: true,
        stdin_open: true,
        sysctls: pairs([("net.core.somaxconn", "1024")]),
        ipc: Some("private".into()),
        pid: Some("host".into()),
        devices: vec![
            device("/dev/null", "/dev/null", "rwm"),
            device("/dev/zero", "/dev/z", "rwm"),
            device("/dev/full", "/dev/full", "rw"),
            device("/dev/random", "/dev/r", "r"),
            device("/dev/a", "/dev/a", "rwm"),
            device("/dev/b", "/dev/c", "m"),
        ],
        ..ContainerSpec::default()
    };
    assert_eq!(spec, expected);

    let hosts = |text: &str| container(&format!("extra_hosts: {text}")).extra_hosts;
    let expected =
        [("a", "1.2.3.4"), ("b", "::1"), ("c", "host-gateway"), ("d", "1.1.1.1"), ("d", "2.2.2.2")]
            .map(|(name, address)| (name.to_owned(), address.to_owned()));
    assert_eq!(hosts("['a=1.2.3.4', 'b=[::1]', 'c:host-gateway', 'd=1.1.1.1,2.2.2.2']"), expected);
    assert_eq!(hosts("{ a: 1.2.3.4, b: '::1', c: host-gateway, d: [1.1.1.1, 2.2.2.2] }"), expected);
    assert_eq!(hosts("['b:::1']"), expected[1..2]);
    let spec = container("dns: 8.8.8.8\ndns_search: example.com\ndns_opt: [use-vc, 'ndots:2']");
    assert_eq!((spec.dns, spec.dns_search), (strings(["8.8.8.8"]), strings(["example.com"])));
    assert_eq!(spec.dns_opt, strings(["use-vc", "ndots:2"]));
    let spec = container("dns: [8.8.8.8, '2001:db8::1']\ndns_search: [a, b]");
    assert_eq!(
        (spec.dns, spec.dns_search),
        (strings(["8.8.8.8", "2001:db8::1"]), strings(["a", "b"]))
    );
}

#[test]
fn how_it_is_stopped() {
    let stop = |lines: &str| {
        let spec =
            components(&format!("components:\n  web:\n    {}\n", lines.replace('\n', "\n    ")));
        let spec = &spec["web"];
        (of(spec).stop_signal, spec.stop.signal, spec.stop.timeout)
    };
    let container = "container: { image: x }";
    assert_eq!(stop(container), (None, 15, seconds(10)));
    assert_eq!(stop(&format!("{container}\nstop: {{ timeout: 3s }}")), (None, 15, seconds(3)));
    assert_eq!(stop(&format!("{container}\nstop: {{ signal: INT }}")), (Some(2), 2, seconds(10)));
    let own = "container: { image: x, stop_signal: SIGUSR1, stop_grace_period: 1m30s }";
    assert_eq!(stop(own), (Some(10), 10, seconds(90)));
    let both = format!("{own}\nstop: {{ signal: 10, timeout: 90s }}");
    assert_eq!(stop(&both), (Some(10), 10, seconds(90)));
}

#[test]
fn probes_of_a_container_are_made_where_it_listens() {
    let probes = |lines: &str| {
        let text =
            format!("components:\n  web:\n    container: {{ image: x }}\n    probes: {lines}\n");
        components(&text)["web"].probes.clone()
    };
    let check =
        |text: &str| probes(&format!("{{ liveness: {{ {text} }} }}")).liveness.unwrap().check;
    assert_eq!(check("container: {}"), Check::Container);
    assert_eq!(check("tcp: 80"), Check::Tcp { host: None, port: 80 });
    assert_eq!(
        check("tcp: { port: 80, host: h }"),
        Check::Tcp { host: Some("h".into()), port: 80 }
    );
    let grpc = Check::Grpc { host: None, port: 1, service: String::new(), tls: false };
    assert_eq!(
        check("all: [{ container: {} }, { grpc: { port: 1 } }]"),
        Check::All(vec![Check::Container, grpc])
    );
    let Check::Http(http) = check("http: { port: 80 }") else { panic!() };
    assert_eq!(http.host, None);
    let ready = probes("{ readiness: { container: {}, interval: 5s } }");
    assert_eq!(ready.readiness.unwrap().check, Check::Container);
    assert_eq!(ready.liveness.unwrap().check, Check::Container);
    let other = probes("{ liveness: { process: {} } }");
    assert_eq!(other.liveness.unwrap().check, Check::Process);
}

#[test]
fn defaults_of_processes_and_of_containers_are_kept_apart() {
    let text = "\
defaults:
  working_dir: /
  umask: 0022
  rlimits: { nofile: 100 }
  stop: { timeout: 5s, signal: INT }
  env: { A: 1 }
  container:
    networks: { default: { aliases: [x] } }
    labels: [a=1, b=1]
    healthcheck: { test: a, interval: 5s }
    mem_limit: 100m
    stop_grace_period: 30s
    build: { context: ., args: { A: 1, B: 1 } }
components:
  process: { command: x }
  one: { container: { image: x } }
  two:
    stop: { timeout: 1s }
    container:
      build: sub
      network_mode: host
      labels: { b: 2 }
      healthcheck: { disable: true }
      deploy: { resources: { limits: { memory: 200m } } }
  three: { container: { image: x, stop_signal: TERM, stop_grace_period: 2s, build: { args: [B=2] } } }
  four: { external: true }
";
    let all = components(text);
    let Workload::Process(process) = &all["process"].workload else { panic!() };
    assert_eq!((process.umask, process.rlimits.len()), (Some(0o022), 1));
    assert_eq!(all["process"].stop.timeout, seconds(5));
    let one = of(&all["one"]);
    assert_eq!(one.environment["A"], EnvValue::Plain("1".into()));
    assert_eq!(one.labels, pairs([("a", "1"), ("b", "1")]));
    assert_eq!((one.stop_signal, all["one"].stop.timeout), (Some(2), seconds(30)));
    let NetworkSpec::Networks(networks) = &one.network else { panic!() };
    assert_eq!(networks[0].aliases, ["one", "x"]);
    let two = of(&all["two"]);
    assert_eq!(two.network, NetworkSpec::Mode("host".into()));
    assert_eq!(two.labels, pairs([("a", "1"), ("b", "2")]));
    let health = two.healthcheck.unwrap();
    assert_eq!((health.test, health.interval), (HealthTest::Disabled, Some(seconds(5))));
    assert_eq!(two.resources.mem_limit, Some(200 << 20));
    assert_eq!(all["two"].stop.timeout, seconds(1));
    let build = two.build.unwrap();
    assert_eq!((build.context.as_path(), build.args.len()), (Path::new("/tmp/shop/sub"), 2));
    let three = of(&all["three"]);
    assert_eq!((three.stop_signal, all["three"].stop.timeout), (Some(15), seconds(2)));
    assert_eq!(three.build.unwrap().args, pairs([("A", "1"), ("B", "2")]));
    assert_eq!(all["four"].workload, Workload::External);
}

#[test]
fn variables_and_notes_in_a_container() {
    let text = "components: { web: { x-a: 1, container: { x-b: { y: z }, image: \"x:${TAG:-1.10}\", ports: [\"${PORT:-80}:80\"], mem_limit: \"${MEM:-64m}\", read_only: \"${RO:-true}\", labels: { a: $$b } } } }";
    let spec = of(&components(text)["web"]);
    assert_eq!((spec.image.as_str(), spec.read_only), ("x:1.10", true));
    assert_eq!((spec.ports[0].published, spec.resources.mem_limit), (Some(80), Some(64 << 20)));
    assert_eq!(spec.labels, pairs([("a", "$b")]));
}

#[test]
fn warnings_of_containers() {
    let text = "\
components:
  a:
    container:
      build: not-there
      command: echo a && echo b | wc
      entrypoint: sh -c 'a && b' '|'
      volumes: ['./a:/a:cached', { type: bind, source: not-there, target: /b, bind: { create_host_path: false } }]
      deploy: { resources: { reservations: { cpus: 1 } } }
";
    let loaded = load(text).unwrap_or_else(|report| panic!("{}", report.render(false, 100)));
    let found: Vec<String> = loaded
        .warnings
        .iter()
        .map(|one| format!("{}:{} {}", one.line, one.column, one.message))
        .collect();
    assert_eq!(
        found,
        [
            "4:14 the folder /tmp/shop/not-there is not there",
            "5:16 `&&` is an argument here: no shell reads this line",
            "7:17 `cached` has no effect here",
            "7:56 /tmp/shop/not-there is not there",
            "8:46 `cpus` cannot be kept for a container: this has no effect",
        ]
    );
}
