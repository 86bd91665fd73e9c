"""The HSM edge: the only package that imports pkcs11, and the only place that knows CKR codes."""
