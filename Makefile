# hepfaas: `make` prints this help
SHELL := /bin/bash
.DEFAULT_GOAL := help
UV := .cache/uv/bin/uv
PYTHON := .venv/bin/python
PIP := $(UV) pip install --python $(PYTHON) --quiet --compile-bytecode
export UV_LINK_MODE ?= copy
# else each of the hundreds of processes of the tests would compile the package again
unexport PYTHONDONTWRITEBYTECODE

help:  ## this help
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 14

demo: .venv/ready  ## train on the shipped sample and predict events it never saw
	@examples/htautau/demo

up-demo: .venv/ready  ## the same through the whole service: store, functions, broker, front door on this machine
	@examples/htautau/up-demo

setup: .venv/ready-to-test  ## set up everything that tests need

test: .venv/ready-to-test  ## the tests, with the real servers they need: 8 minutes on 2 cores
	$(PYTHON) -m pytest $(PARALLEL) -m "not slow"

test-slow: .venv/ready-to-test  ## slow tests: a sample of chaos and fuzz, restarts, same weights: 13 minutes
	$(PYTHON) -m pytest $(PARALLEL) -m slow
PARALLEL = -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

check: .venv/ready-to-test .cache/site/ready  ## style, types, imports between rooms, links in the documents, manifests against Knative's rules
	.venv/bin/ruff check . && .venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PYTHON) docs/generate --check && .cache/site/bin/mkdocs build
	tests/check-manifests

settings: .venv/ready  ## write the table of settings into docs/reference/settings.md
	$(PYTHON) -m hepfaas.platform.settings $(shell find docs -name settings.md)

docs: .venv/ready .cache/site/ready  ## the documents as a site, .cache/site/html/index.html; a broken link fails
	$(PYTHON) docs/generate
	.cache/site/bin/mkdocs build
export NO_MKDOCS_2_WARNING := true

chaos: .venv/ready-to-test  ## every call with every kind of fault, then 50 random plans: half an hour
	HEPFAAS_CHAOS=all $(PYTHON) -m pytest tests/chaos tests/expressions tests/orchestration tests/api tests/jobs tests/serving tests/system

bench: .venv/ready-to-test  ## ratios against named alternatives: a table, and JSON in .cache/bench
	$(PYTHON) benchmarks/run.py

bench-predict: .venv/ready-to-test  ## predictions alone: against MLServer, KServe and a bare ASGI app; overload, files, swaps
	@command -v wrk >/dev/null || (apt-get update -qq && apt-get install -qq -y wrk >/dev/null)
	$(PYTHON) benchmarks/run.py predict predict_load

image:  ## one function's image: make image FUNCTION=survey [IMAGES=registry.example.org/hepfaas TAG=0.1.0]
	@case "$(IMAGES) $(BASE)" in dev.local/*|*@sha256:*) ;; *) echo "the base image $(BASE) has no digest, so its tag" \
	  "may be moved: make bases writes digests to bases.mk" >&2; exit 1;; esac
	$(BUILD) -f $(firstword $(wildcard manifests/base/$(FUNCTION)/Dockerfile) functions/Dockerfile) --build-arg BASE=$(BASE) --build-arg FUNCTION=$(FUNCTION) \
	  --build-arg VERSION=$(TAG) --build-arg REVISION=$$(git rev-parse HEAD) -t $(IMAGES)/$(FUNCTION):$(TAG) .
IMAGES ?= dev.local/hepfaas
TAG ?= local
BUILD ?= docker build --network=host
-include bases.mk
PYTHON_BASE ?= $(PYTHON_TAG)
ALMALINUX_BASE ?= $(ALMALINUX_TAG)
BASE = $(if $(filter xrootd-cache,$(FUNCTION)),$(ALMALINUX_BASE),$(PYTHON_BASE))
PYTHON_TAG := python:3.11-slim-bookworm
ALMALINUX_TAG := almalinux:9

images:  ## the images of all functions, and of the XRootD cache
	for name in $(FUNCTIONS) xrootd-cache; do $(MAKE) --no-print-directory image FUNCTION=$$name || exit; done

bases:  ## ask the registry for the digests of the base images, and write them to bases.mk: commit it
	python=$$(manifests/pin-images --image $(PYTHON_TAG)) && almalinux=$$(manifests/pin-images --image $(ALMALINUX_TAG)) \
	  && printf 'PYTHON_BASE ?= %s\nALMALINUX_BASE ?= %s\n' "$$python" "$$almalinux" >bases.mk

pin:  ## write the digests of a site's images into its overlay, once they are pushed: make pin SITE=mysite
	manifests/pin-images manifests/overlays/$(SITE)

sbom: export PYTHONWARNINGS = ignore
sbom: | $(UV)  ## the Python packages of each image, as CycloneDX: .cache/sbom/FUNCTION.cdx.json
	@mkdir -p .cache/sbom
	for name in $(FUNCTIONS); do $(TOOL) cyclonedx-bom==7.5.0 cyclonedx-py requirements locks/$$name.txt --output-reproducible \
	  --pyproject pyproject.toml -o .cache/sbom/$$name.cdx.json || exit; done

audit: | $(UV)  ## known vulnerabilities of all locked packages and of the Go programs; fails if the advisories cannot be reached
	@status=0; $(TOOL) pip-audit==2.10.1 pip-audit --strict --disable-pip --require-hashes --progress-spinner off \
	  $(foreach lock,$(wildcard locks/*.txt),-r $(lock)) || { status=1; echo "make audit: a package has an advisory, or could" \
	  "not be audited: pypi.org or, with PIP_AUDIT_VULNERABILITY_SERVICE=osv, api.osv.dev must be reached" >&2; }; \
	  tests/audit-go || { status=1; echo "make audit: a Go program has an advisory, or none were reached (vuln.go.dev," \
	  "or GOVULNDB)" >&2; }; exit $$status
TOOL = $(UV) tool run --quiet --python 3.11 --from

deploy:  ## onto the cluster of KUBECONFIG: make deploy SITE=local
	@[ "$(SITE)" = local ] || manifests/pin-images --check manifests/overlays/$(SITE)
	kubectl apply --server-side --force-conflicts -k manifests/overlays/$(SITE)
	kubectl wait --namespace hepfaas --for=condition=Ready --timeout=600s ksvc,broker,trigger,pingsource --all
	$(ROLLED)

roll:  ## new revisions and pods of everything, after a change of a Secret that was created by hand
	for one in $$(kubectl get --namespace hepfaas ksvc -o name); do kubectl patch --namespace hepfaas $$one --type=merge \
	  -p "{\"spec\": {\"template\": {\"metadata\": {\"annotations\": {\"hepfaas.org/rolled\": \"$$(date +%s)\"}}}}}" || exit; done
	kubectl rollout restart --namespace hepfaas deployment
	kubectl wait --namespace hepfaas --for=condition=Ready --timeout=600s ksvc --all
	$(ROLLED)
ROLLED = for one in $$(kubectl get --namespace hepfaas deployment,statefulset -o name); do \
  kubectl rollout status --namespace hepfaas --timeout=600s $$one || exit; done

undeploy:  ## remove it from the cluster; the bucket stays, unless it is in the cluster
	kubectl delete --ignore-not-found -k manifests/overlays/$(SITE)

cluster-demo: .venv/ready-to-test  ## the main job on a real Knative on this machine, through both proxies
	@examples/htautau/cluster-demo

e2e: .venv/ready-to-test  ## tests on that cluster, with their measurements: an hour
	HEPFAAS_E2E=1 $(PYTHON) -m pytest -rP tests/e2e

locks: .venv/ready  ## resolve all requirements again: one resolution, hashes, no addresses
	$(UV) pip compile $(COMPILE) pyproject.toml --extra local --group dev -o locks/dev.txt --upgrade
	for name in local $(FUNCTIONS); do $(UV) pip compile $(COMPILE) pyproject.toml --extra $$name -c locks/dev.txt -o locks/$$name.txt; done
	$(UV) pip compile $(COMPILE) --group docs -o locks/docs.txt --upgrade
FUNCTIONS = $(notdir $(patsubst %/,%,$(dir $(wildcard functions/*/main.py))))
COMPILE := --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11

protobuf: | $(UV)  ## generate shared/hepfaas/serving/*_pb2.py from the .proto files beside them
	$(TOOL) grpcio-tools==1.85.1 python -m grpc_tools.protoc --proto_path=shared --python_out=shared shared/hepfaas/serving/*.proto

clean:  ## remove everything that the targets above created
	rm -rf .venv .cache .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(UV):
	@echo "setting up uv"
	@python3 -m ensurepip --version >/dev/null 2>&1 || (apt-get update -qq && apt-get install -qq -y python3-venv >/dev/null)
	@python3 -m venv .cache/uv && .cache/uv/bin/python -m pip install --quiet uv

.venv/ready: locks/local.txt pyproject.toml | $(UV)
	@echo "setting up Python packages (TensorFlow among them: some 2 GB)"
	@$(UV) venv --quiet --allow-existing --python python3 .venv
	@$(PIP) --require-hashes -r locks/local.txt && $(PIP) --no-deps -e .
	@touch $@

.venv/ready-to-test: .venv/ready locks/dev.txt
	@echo "setting up what tests need (some minutes the first time)"
	@$(PIP) --require-hashes -r locks/dev.txt
	@{ command -v xrootd && command -v xrdgsiproxy; } >/dev/null || if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -qq -y xrootd-server xrootd-client >/dev/null; \
	  else echo "no xrootd or xrdgsiproxy: their tests are skipped (apt-get install xrootd-server xrootd-client)"; fi
	@{ command -v docker-registry && command -v skopeo; } >/dev/null || if [ "$$(id -u)" = 0 ]; then apt-get install -qq -y docker-registry skopeo >/dev/null; fi
	@command -v go >/dev/null || if [ "$$(id -u)" = 0 ]; then apt-get install -qq -y golang-go >/dev/null; fi
	@command -v kubectl >/dev/null || if [ "$$(id -u)" = 0 ]; then apt-get install -qq -y kubernetes-client >/dev/null; fi
	@{ tests/build-queue-proxy && tests/build-oauth2-proxy && tests/build-knative-validate; } 2> >(grep -v -E '^go: (added|creating|downloading) ' >&2)
	@for name in "tritonclient[http,grpc]==2.73.0" kserve==0.21.0; do python=.cache/peers/$${name%%[=\[]*}; \
	  $(UV) venv --quiet --allow-existing --python 3.11 $$python; \
	  $(UV) pip install --quiet --python $$python/bin/python "$$name" || exit 1; done
	@touch $@

# Separate from .venv: mkdocs needs none of our packages and reads the sources without importing them.
.cache/site/ready: locks/docs.txt | $(UV)
	@$(UV) venv --quiet --allow-existing --python python3 .cache/site
	@$(UV) pip install --python .cache/site/bin/python --quiet --require-hashes -r $<
	@touch $@

.PHONY: help demo up-demo setup test test-slow check docs settings chaos bench bench-predict image images bases pin sbom audit deploy roll undeploy cluster-demo e2e locks protobuf clean
