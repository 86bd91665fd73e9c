"""A PKCS#11 module that wraps SoftHSM and fails as it is told; built by `build.sh`, told by `client.Shim`."""
