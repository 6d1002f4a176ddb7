"""Reports of a run: `report.json` for programs, a table for the terminal, `report.md` and `report.html` for people.

Works on plain dicts and files; imports only `errors` and `utils`. The hook that collects the figures of a run is
`recipe/report_hook.py`. A new output format gets a module here that takes the dict described in `schema.py`.
"""
