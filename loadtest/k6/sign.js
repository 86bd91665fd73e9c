// The HTTP entrance in open loop, for those who prefer k6: k6 run -e URL=https://signer.example loadtest/k6/sign.js
// It counts and times. It does not verify signatures with the public key: `python -m loadtest` does.
import http from "k6/http";
import { check } from "k6";
import exec from "k6/execution";

const RATE = Number(__ENV.RATE || 200);
const RUN = __ENV.RUN || `K6-${Date.now()}`;

export const options = {
  // The arrival rate is kept whatever the answers do; a run in which arrivals were dropped proves nothing.
  scenarios: {
    steady: {
      executor: "constant-arrival-rate",
      rate: RATE,
      timeUnit: "1s",
      duration: __ENV.DURATION || "60s",
      preAllocatedVUs: 200,
      maxVUs: 2000,
    },
  },
  thresholds: {
    http_req_duration: ["p(99)<100"],
    http_req_failed: ["rate==0"],
    checks: ["rate==1"],
    dropped_iterations: ["count==0"],
  },
  tlsAuth: __ENV.CLIENT_CERT
    ? [{ cert: open(__ENV.CLIENT_CERT), key: open(__ENV.CLIENT_KEY) }]
    : [],
};

const HEADERS = { "Content-Type": "application/json" };
if (__ENV.TOKEN_FILE) {
  HEADERS.Authorization = `Bearer ${open(__ENV.TOKEN_FILE).trim()}`;
}

export function setup() {
  return { run: RUN };
}

export default function (data) {
  const transaction = `${data.run}-${exec.scenario.iterationInTest}`;
  const body = JSON.stringify({
    key: __ENV.KEY || "settlement",
    transaction_id: transaction,
    message: { amount: "1250.00", currency: "EUR", creditor: "DE89370400440532013000", reference: transaction },
  });
  const answer = http.post(`${__ENV.URL || "http://127.0.0.1:8080"}/v1/sign`, body, { headers: HEADERS });
  check(answer, {
    "is signed": (got) => got.status === 200,
    "is for what was asked": (got) => got.status === 200 && got.json("transaction_id") === transaction,
    "has a signature of 2048 bits": (got) => got.status === 200 && (got.json("signature.value") || "").length === 344,
  });
}
