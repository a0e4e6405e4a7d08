# The commands that everyone runs. Each installs what it needs and may be repeated.
#
#   sudo make demo    a real task in real containers, from a registry of its own
#   sudo make test    every tier of tests, and the short way through a virtual machine;
#                     without root it says what is left out, and runs the rest
#   make lint         style, types, import contracts
#   make docs         the tables of docs/settings.md and docs/logging.md, the flags of loggers
#   sudo make bench   ratios against ctr, podman and docker where these start
#
#   sudo make images-test  databases, web servers and runtimes as people run them; minutes
#   make kill-test    kill -9 of the control plane under load, 200 times
#   make mutation-test  change a line of the life of a task: a test has to fail, each time
#   sudo make vm-test the installed product in virtual machines, all of it; SUITE=trixie for Debian 13
#
#   sudo make install     as systemd services; docs/install.md goes through it
#   sudo make uninstall   takes everything back but state, keys and images
#   sudo make purge       these too
#   make wheels           the part of `make install` that needs a network

SHELL := /bin/bash
PYTHON ?= /usr/bin/python3
VENV := .venv
WHEELS ?= build/wheels
SUITE ?= bookworm
THIRD_PARTY := build/third-party

# As packagers expect: links and units go below PREFIX, links to CNI plugins into CNI_BIN_DIR. With
# DESTDIR, all files go below that, and nothing else is touched.
PREFIX ?= /usr/local
CNI_BIN_DIR ?= /opt/cni/bin
DESTDIR ?=

INSTALL_PACKAGES := python3 python3-venv ca-certificates containerd runc catatonit e2fsprogs xfsprogs
RUN_PACKAGES := python3 python3-venv ca-certificates containerd runc catatonit e2fsprogs iproute2 xfsprogs
DEMO_PACKAGES := $(RUN_PACKAGES) docker-registry busybox-static procps
TEST_PACKAGES := $(DEMO_PACKAGES) crun nftables containernetworking-plugins rsyslog skopeo umoci util-linux \
	golang-github-containerd-containerd-dev golang-github-gogo-protobuf-dev \
	golang-github-gogo-googleapis-dev golang-github-containerd-cgroups-dev \
	golang-github-containers-common vagrant postgresql
VM_PACKAGES := qemu-system-x86 mmdebstrap e2fsprogs python3-venv git iproute2 util-linux \
	docker-registry skopeo busybox-static
BENCH_PACKAGES := $(DEMO_PACKAGES) podman netavark iptables util-linux wrk iperf3 haproxy

missing = for package in $(1); do \
		dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'install ok installed' \
			|| echo $$package; \
	done

# apt-get is only asked when something is missing, so that a second run needs no network.
define install
	@missing=$$($(call missing,$(1))); \
	if [ -n "$$missing" ] && [ $$(id -u) -ne 0 ]; then \
		echo "make $(MAKECMDGOALS): packages are missing, and installing them needs root:" >&2; \
		echo "    apt-get install" $$missing >&2; \
		exit 1; \
	fi; \
	if [ -n "$$missing" ]; then \
		echo installing $$missing; \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update -q >/dev/null && \
		apt-get install -y -q --no-install-recommends $$missing >/dev/null; \
	fi
endef

# What `make test` does about packages without root.
define report
	@echo "make test: without root, tests of the machine and the virtual machine are left out"
	@missing=$$($(call missing,$(1))); \
	if [ -n "$$missing" ]; then \
		echo "Tests that need one of these packages are skipped; as root:"; \
		echo "    apt-get install" $$missing; \
	fi
endef

build_wheels := systemd/build-wheels '$(PYTHON)' '$(WHEELS)' build/env
setup := PREFIX='$(PREFIX)' CNI_BIN_DIR='$(CNI_BIN_DIR)' DESTDIR='$(DESTDIR)' WHEELS='$(WHEELS)' PYTHON='$(PYTHON)' systemd/install

.PHONY: demo test pytest images-test third-party vm-short vm-test kill-test mutation-test lint docs bench wheels \
	install uninstall purge \
	packages-demo packages-test packages-reported packages-vm packages-bench packages-install clean

demo: packages-demo $(VENV)/run.stamp
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" examples/demo/run

# As root every package is there, and under CI a test that lacks one fails.
# Each process of pytest has a network and mounts of their own. The virtual machine comes
# after them: where it is emulated it takes a whole processor.
ifeq ($(shell id -u),0)
test: packages-test packages-vm $(VENV)/dev.stamp
	@$(MAKE) --no-print-directory -j 1 CI=true pytest vm-short
else
test: packages-reported pytest
endif

pytest: $(VENV)/dev.stamp third-party
	$(VENV)/bin/python -m pytest -n 4 --dist loadfile

vm-short: packages-vm $(VENV)/dev.stamp
	$(VENV)/bin/python -m tests.vm --suite $(SUITE) --journey short

# The base image is kept in ~/.cache; a machine is made of a copy and thrown away.
vm-test: packages-vm $(VENV)/dev.stamp
	$(VENV)/bin/python -m tests.vm --suite $(SUITE)

# Built from Debian's packages, as Dockerfiles would, and kept in ~/.cache.
images-test: packages-test packages-vm $(VENV)/dev.stamp
	$(VENV)/bin/python -m tests.images.build
	CI=true FARGATE_TEST_IMAGES=1 $(VENV)/bin/python -m pytest -n 0 tests/images

# The same test is a part of `make test`, with fewer kills.
kill-test: packages-test $(VENV)/dev.stamp
	FARGATE_TEST_KILLS=200 $(VENV)/bin/python -m pytest tests/integration/test_controlplane_kills.py

mutation-test: $(VENV)/dev.stamp
	$(VENV)/bin/python -m tests.mutations

docs: $(VENV)/dev.stamp
	$(VENV)/bin/python -m docs.settings_tables
	$(VENV)/bin/python -m docs.log_options

third-party: $(THIRD_PARTY)/stamp

lint: $(VENV)/dev.stamp
	$(VENV)/bin/python -m pytest tests/lint

bench: packages-bench $(VENV)/dev.stamp
	$(VENV)/bin/python bench/run.py

install: packages-install
	@$(build_wheels)
	@$(setup) install

uninstall purge:
	@$(setup) $@

# On a machine without a network: bring build/wheels along, as another one of its kind made it.
wheels:
	@$(build_wheels)

packages-install:
	$(if $(DESTDIR),,$(call install,$(INSTALL_PACKAGES)))

packages-demo:
	$(call install,$(DEMO_PACKAGES))

packages-test:
	$(call install,$(TEST_PACKAGES))

packages-reported:
	$(call report,$(TEST_PACKAGES))

packages-vm:
	$(call install,$(VM_PACKAGES))

packages-bench:
	$(call install,$(BENCH_PACKAGES))

$(VENV)/run.stamp: pyproject.toml
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/dev.stamp: pyproject.toml
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/run.stamp

# Programs that others wrote, which tests run inside containers, and Node.
$(THIRD_PARTY)/stamp: $(VENV)/dev.stamp $(wildcard tests/third_party/p*.txt tests/third_party/*.json)
	@tests/third_party/install $(VENV)/bin/pip $(THIRD_PARTY)
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
