# Two commands matter to a newcomer: `make demo` and `make test`. Each does all its own set-up.
.PHONY: demo test check fmt lock sdk bench fuzz mutation soak clean
SHELL := /bin/bash
PY := .venv/bin/python

demo: ; @scripts/bootstrap && exec .venv/bin/anchorhold demo \
	$(if $(ONCE),--once) $(if $(TRUST),--trust $(TRUST)) $(if $(MODEL),--model '$(MODEL)') $(if $(PORT),--port $(PORT))
test: ; @scripts/bootstrap && scripts/check && scripts/test && scripts/test-sdk
check: ; @scripts/bootstrap && scripts/check
fmt: ; @scripts/bootstrap && .venv/bin/ruff check -q --fix . ; .venv/bin/ruff format -q .
lock: ; @scripts/lock
sdk: ; @scripts/bootstrap && .venv/bin/pip wheel -q --no-deps -w dist ./sdk && ls dist
bench: ; @scripts/bootstrap && $(PY) bench/overhead.py && $(PY) bench/log.py && $(PY) bench/opening.py && $(PY) bench/sweep.py
fuzz: ; @scripts/bootstrap && ANCHORHOLD_VECTORS="$${ANCHORHOLD_VECTORS:-$$PWD/../shared/vectors}" nice -n 10 $(PY) -m fuzz --jobs 2 \
	$(if $(COUNT),--count $(COUNT)) $(if $(TARGET),--target '$(TARGET)')
mutation: ; @scripts/bootstrap && ANCHORHOLD_VECTORS="$${ANCHORHOLD_VECTORS:-$$PWD/../shared/vectors}" nice -n 10 $(PY) -m mutation --jobs 2 \
	$(if $(MODULE),--module '$(MODULE)',--short)
soak: ; @scripts/bootstrap && nice -n 10 $(PY) -m soak $(if $(COUNT),--count $(COUNT)) $(if $(MODEL),--model '$(MODEL)')
clean: ; rm -rf .venv dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
