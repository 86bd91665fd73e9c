"""The audit log: a hash chain of everything that was signed or refused, in files an auditor can check alone."""
