//! The manifest that `stigmer init` writes.

/// A commented manifest for a project of this name; it loads as it is.
#[must_use]
pub fn template(project: &str) -> String {
    TEMPLATE.replace("PROJECT", project)
}

const TEMPLATE: &str = "\
# What stigmer keeps running here. `stigmer apply` makes it so, `stigmer status` shows it.
# Every key is explained in docs/manifest.md.

project: \"PROJECT\"

components:
  hello:
    # A string is a line for the shell. A list is executed as it is: [program, argument].
    command: \"while true; do date; sleep 5; done\"

    # env:
    #   DATABASE: \"postgres://localhost/${DB_NAME:-shop}\"    # ${...} comes from your shell
    # env_file: .env
    # working_dir: .
    # ports: [8080]

    # probes:
    #   startup: { tcp: 8080 }                                   # has it started?
    #   liveness: { http: { port: 8080, path: /healthz } }       # a failure restarts
    #   readiness: { http: { port: 8080, path: /readyz } }       # a failure holds what depends on it

    # These are the defaults: after ten restarts in ten minutes it is given up.
    # restart: { policy: always, max_restarts: 10, window: 10m }

    # stop: { signal: SIGTERM, timeout: 10s }
    # logs: { max_size: 50MB, max_files: 5 }

  # another:
  #   command: [./worker, --verbose]
  #   depends_on: { hello: started }                             # or: healthy, ready, completed

  # db:
  #   container:                                                 # the keys of a service in a Compose file
  #     image: postgres:16
  #     ports: [\"5432:5432\"]
  #     volumes: [./data:/var/lib/postgresql/data]
";
