"""`./dev chaos`: whatever users and machines do, in any order, and then a look whether anything was lost.

A round is made by chance from its seed. `world` holds what is real: a docker-registry, one to three registry-spooler
processes on one directory, a proxy between them that goes wrong on purpose. `operations` are what users do with files,
`faults` what breaks meanwhile; each operation tells the `model`, which is plain code and knows for every image which
contents its tag may show in the end. `checker` compares, blob by blob. `rounds` puts it together.
"""
