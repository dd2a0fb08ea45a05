//! What the engine is asked to make.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::model::RunId;
use crate::model::container::{
    DeviceSpec, MountSpec, NetworkDeclaration, PortMapping, Protocol, VolumeSpec,
};
use crate::model::spec::LimitSpec;

fn identity() -> Identity {
    let instance = InstanceId::new("shop", "db", 0);
    Identity { home: "h".into(), instance, run: RunId(7), digest: "d".into() }
}

fn version(minor: usize) -> Version {
    Version { name: "Docker 20.10.24".into(), minor }
}

fn made(spec: &ContainerSpec) -> ContainerCreateBody {
    order(spec, &identity(), vec!["A=1".into()], &[], &version(41)).unwrap().body
}

fn host(spec: &ContainerSpec) -> HostConfig {
    made(spec).host_config.unwrap()
}

#[test]
fn s36_the_engine_restarts_nothing_and_knows_whose_it_is() {
    let body = made(&ContainerSpec { image: "a".into(), ..ContainerSpec::default() });
    let host = body.host_config.unwrap();
    assert_eq!(host.restart_policy.unwrap().name, Some(RestartPolicyNameEnum::NO));
    assert_eq!(host.auto_remove, Some(false));
    assert_eq!(Identity::of(&body.labels.unwrap()), Some(identity()));
    assert_eq!((body.image.as_deref(), body.env), (Some("a"), Some(vec!["A=1".into()])));
    assert_eq!((body.cmd, body.entrypoint, body.stop_signal), (None, None, None));
    assert_eq!(body.stop_timeout, Some(10), "an engine may take none for 0");
}

#[test]
fn an_empty_entrypoint_clears_that_of_the_image() {
    let spec = ContainerSpec { entrypoint: Some(Vec::new()), ..ContainerSpec::default() };
    assert_eq!(made(&spec).entrypoint, Some(vec![String::new()]));
}

#[test]
fn ports_are_published_where_they_are_declared() {
    let port = |target, published, host_ip: Option<&str>| PortMapping {
        target,
        published,
        published_end: None,
        host_ip: host_ip.map(str::to_owned),
        protocol: Protocol::Tcp,
    };
    let ports = vec![
        port(80, Some(8080), None),
        port(80, Some(81), Some("127.0.0.1")),
        port(90, None, None),
    ];
    let body = made(&ContainerSpec { ports, ..ContainerSpec::default() });
    let bindings = body.host_config.unwrap().port_bindings.unwrap();
    let of = |key: &str| bindings[key].clone().unwrap();
    assert_eq!(of("80/tcp").len(), 2);
    assert_eq!(of("80/tcp")[1].host_ip.as_deref(), Some("127.0.0.1"));
    assert_eq!(of("90/tcp")[0].host_port, None);
    assert!(body.exposed_ports.unwrap().contains(&"90/tcp".to_owned()));
}

#[test]
fn mounts_of_every_kind() {
    let mount = |source, read_only| MountSpec { source, read_only };
    let bind = |create_host_path, selinux| MountSource::Bind {
        path: "/data".into(),
        create_host_path,
        propagation: None,
        selinux,
    };
    let volume = VolumeSpec {
        name: "shop_db".into(),
        external: false,
        driver: None,
        driver_opts: BTreeMap::new(),
        labels: BTreeMap::new(),
    };
    let tmpfs = |options: &[&str]| MountSource::Tmpfs {
        size: Some(1024),
        mode: Some(0o700),
        options: options.iter().map(|&option| option.to_owned()).collect(),
    };
    let volumes = BTreeMap::from([
        ("/a".to_owned(), mount(bind(true, Some('z')), true)),
        ("/b".to_owned(), mount(bind(false, None), false)),
        (
            "/c".to_owned(),
            mount(MountSource::Volume { volume, nocopy: true, subpath: None }, false),
        ),
        ("/d".to_owned(), mount(MountSource::Anonymous { nocopy: false }, false)),
        ("/e".to_owned(), mount(tmpfs(&[]), false)),
        ("/f".to_owned(), mount(tmpfs(&["noexec"]), false)),
    ]);
    let spec = ContainerSpec { volumes, ..ContainerSpec::default() };
    let wanted = ["/d".to_owned(), "/g".to_owned()];
    let order = order(&spec, &identity(), Vec::new(), &wanted, &version(41)).unwrap();
    let host = order.body.host_config.unwrap();
    assert_eq!(host.binds, Some(vec!["/data:/a:ro,z".to_owned()]));
    assert_eq!(host.tmpfs.unwrap()["/f"], "noexec,size=1024,mode=700");
    let mounts = host.mounts.unwrap();
    let targets: Vec<&str> = mounts.iter().filter_map(|mount| mount.target.as_deref()).collect();
    assert_eq!(targets, ["/b", "/c", "/d", "/e", "/g"]);
    let source = |place: usize| mounts[place].source.clone().unwrap_or_default();
    assert_eq!(source(1), "shop_db");
    assert_eq!(source(2), volume_name(&identity().instance, "/d"));
    assert_eq!(source(4), volume_name(&identity().instance, "/g"));
}

#[test]
fn the_first_network_is_that_of_the_making_and_the_others_follow() {
    let attachment = |name: &str| AttachmentSpec {
        network: NetworkDeclaration {
            name: name.into(),
            external: false,
            driver: None,
            driver_opts: BTreeMap::new(),
            internal: false,
            attachable: false,
            enable_ipv6: false,
            subnets: Vec::new(),
            labels: BTreeMap::new(),
        },
        aliases: vec!["db".into()],
        ipv4_address: (name == "two").then(|| "10.0.0.5".into()),
        ipv6_address: None,
    };
    let network = NetworkSpec::Networks(vec![attachment("one"), attachment("two")]);
    let spec = ContainerSpec { network, ..ContainerSpec::default() };
    let order = order(&spec, &identity(), Vec::new(), &[], &version(41)).unwrap();
    assert_eq!(order.body.host_config.unwrap().network_mode.as_deref(), Some("one"));
    assert_eq!(order.body.networking_config.unwrap().endpoints_config.unwrap().len(), 1);
    let (name, endpoint) = &order.further[0];
    assert_eq!(name, "two");
    assert_eq!(endpoint.aliases, Some(vec!["db".to_owned()]));
    let fixed = endpoint.ipam_config.as_ref().unwrap().ipv4_address.as_deref();
    assert_eq!(fixed, Some("10.0.0.5"));
}

#[test]
fn limits_have_the_units_of_the_engine_and_are_told_of_in_full() {
    let resources = ResourceSpec {
        cpus: Some(1500),
        mem_limit: Some(1 << 20),
        pids_limit: Some(10),
        ..ResourceSpec::default()
    };
    let ulimits = BTreeMap::from([("nofile".to_owned(), LimitSpec { soft: Some(10), hard: None })]);
    let spec = ContainerSpec { ulimits, resources, ..ContainerSpec::default() };
    let host = host(&spec);
    assert_eq!((host.nano_cpus, host.memory), (Some(1_500_000_000), Some(1 << 20)));
    let ulimit = &host.ulimits.unwrap()[0];
    assert_eq!((ulimit.soft, ulimit.hard), (Some(10), Some(-1)));
    let told = update(&spec.resources);
    assert_eq!((told.nano_cpus, told.memory_swap), (Some(1_500_000_000), Some(-1)));
}

#[test]
fn what_an_old_engine_cannot_do_is_said_with_the_version_that_can() {
    let healthcheck = HealthcheckSpec {
        test: HealthTest::Exec(vec!["true".into()]),
        interval: Some(Duration::from_secs(1)),
        timeout: None,
        retries: Some(2),
        start_period: None,
        start_interval: Some(Duration::from_millis(100)),
    };
    let spec = ContainerSpec { healthcheck: Some(healthcheck), ..ContainerSpec::default() };
    let refused = order(&spec, &identity(), Vec::new(), &[], &version(41)).unwrap_err();
    let message = refused.to_string();
    for part in ["healthcheck.start_interval", "1.44", "Docker 20.10.24", "1.41"] {
        assert!(message.contains(part), "no {part:?} in {message:?}");
    }
    let body = order(&spec, &identity(), Vec::new(), &[], &version(44)).unwrap().body;
    let check = body.healthcheck.unwrap();
    assert_eq!(check.test, Some(vec!["CMD".to_owned(), "true".to_owned()]));
    assert_eq!((check.interval, check.start_interval), (Some(1_000_000_000), Some(100_000_000)));
}

#[test]
fn the_rest_arrives_as_it_is_written() {
    let spec = ContainerSpec {
        cap_add: BTreeSet::from(["NET_ADMIN".to_owned()]),
        extra_hosts: vec![("host.docker.internal".into(), "host-gateway".into())],
        devices: vec![DeviceSpec {
            source: "/dev/null".into(),
            target: "/dev/x".into(),
            permissions: "rw".into(),
        }],
        init: Some(true),
        read_only: true,
        shm_size: Some(64),
        stop_signal: Some(libc::SIGINT),
        tty: true,
        ..ContainerSpec::default()
    };
    let body = made(&spec);
    assert_eq!((body.stop_signal.as_deref(), body.tty), (Some("SIGINT"), Some(true)));
    let host = body.host_config.unwrap();
    assert_eq!(host.cap_add, Some(vec!["NET_ADMIN".to_owned()]));
    assert_eq!(host.cap_drop, None);
    assert_eq!(host.extra_hosts, Some(vec!["host.docker.internal:host-gateway".to_owned()]));
    assert_eq!(host.devices.unwrap()[0].path_in_container.as_deref(), Some("/dev/x"));
    assert_eq!(
        (host.init, host.readonly_rootfs, host.shm_size),
        (Some(true), Some(true), Some(64))
    );
}
