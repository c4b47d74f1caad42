# Shortcuts; the scripts need only Python.
.PHONY: test demo interop optimum integrations help setup

test:
	python3 scripts/test.py

demo:
	python3 scripts/demo.py

optimum:
	python3 scripts/test.py --stack optimum

integrations:
	python3 scripts/test.py --stack integrations

interop:
	python3 scripts/interop.py

setup:
	python3 scripts/environment.py

help:
	.venv/bin/python scripts/write_help.py
