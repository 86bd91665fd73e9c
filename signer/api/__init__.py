"""The HTTP entrance: requests in, signatures or RFC 9457 problems out; HTTP status codes exist only in here."""
