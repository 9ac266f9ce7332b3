# Two commands matter to a newcomer: `make demo` and `make test`. Each does all its own set-up.
.PHONY: demo test check fmt lock sdk bench clean
SHELL := /bin/bash
PY := .venv/bin/python

demo: ; @scripts/bootstrap && exec .venv/bin/anchorhold demo \
	$(if $(ONCE),--once) $(if $(TRUST),--trust $(TRUST)) $(if $(MODEL),--model '$(MODEL)') $(if $(PORT),--port $(PORT))
test: ; @scripts/bootstrap && scripts/check && scripts/test && scripts/test-sdk
check: ; @scripts/bootstrap && scripts/check
fmt: ; @scripts/bootstrap && .venv/bin/ruff check -q --fix . ; .venv/bin/ruff format -q .
lock: ; @scripts/lock
sdk: ; @scripts/bootstrap && .venv/bin/pip wheel -q --no-deps -w dist ./sdk && ls dist
bench: ; @scripts/bootstrap && $(PY) bench/overhead.py
clean: ; rm -rf .venv dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
