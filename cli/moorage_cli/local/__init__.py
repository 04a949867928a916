"""`moorage up`: a runtime process for each replica and one gateway, kept as their YAML says.

`supervisor` looks, has `moorage_operator.core.local` decide, and acts; `process` carries out,
`state_folder` reads and writes what the gateway reads and writes too.
"""
