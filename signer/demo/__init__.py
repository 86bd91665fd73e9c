"""The whole product on one machine: an AWS emulator, a SoftHSM token and a real `signer serve`, on loopback only."""
