// The acceptance test for those who prefer k6: a constant arrival rate at the HTTP entrance.
//
//   k6 run -e URL=http://127.0.0.1:8080 -e RATE=200 -e DURATION=300s loadtest/k6/sign.js
//
// Beside it: -e TOKEN=... for a bearer token, -e CERT=cert.pem -e KEY=key.pem for mutual TLS, -e ALIAS=settlement,
// -e JWKS=https://.../.well-known/jwks.json if the key set is not at URL. Every signature is verified with the key its
// fingerprint names, over the content that was sent. The ledger and the audit log are out of reach from here:
// `python -m loadtest` compares with them, k6 cannot.
import http from 'k6/http';
import encoding from 'k6/encoding';
import exec from 'k6/execution';
import { check } from 'k6';
import { Counter } from 'k6/metrics';

const URL = __ENV.URL || 'http://127.0.0.1:8080';
const ALIAS = __ENV.ALIAS || 'settlement';
const RATE = Number(__ENV.RATE || 200);
const HEADERS = Object.assign(
  { 'Content-Type': 'application/json' },
  __ENV.TOKEN ? { Authorization: `Bearer ${__ENV.TOKEN}` } : {},
);

const verified = new Counter('signatures_verified');
const wrong = new Counter('signatures_wrong');

export const options = {
  scenarios: {
    steady: {
      executor: 'constant-arrival-rate',
      rate: RATE,
      timeUnit: '1s',
      duration: __ENV.DURATION || '60s',
      preAllocatedVUs: RATE,
      maxVUs: RATE * 10,
    },
  },
  tlsAuth: __ENV.CERT ? [{ cert: open(__ENV.CERT), key: open(__ENV.KEY) }] : [],
  thresholds: {
    http_req_duration: ['p(99)<100'],
    http_req_failed: ['rate==0'],
    signatures_wrong: ['count==0'],
    // k6's word for a generator that fell behind.
    dropped_iterations: ['count==0'],
    checks: ['rate==1'],
  },
};

export function setup() {
  const answer = http.get(__ENV.JWKS || `${URL}/.well-known/jwks.json`);
  if (answer.status !== 200) {
    exec.test.abort(`no key set: HTTP ${answer.status}`);
  }
  return { run: `K6-${Date.now()}`, keys: answer.json('keys') };
}

function bytes(text) {
  return new Uint8Array(encoding.b64decode(text));
}

async function verifies(signature, content, keys) {
  const jwk = keys.find((key) => key.kid === signature.key_fingerprint);
  if (jwk === undefined || signature.algorithm !== 'RSASSA_PKCS1_V1_5_SHA_256') {
    return false;
  }
  const algorithm = { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' };
  const key = await crypto.subtle.importKey('jwk', { kty: jwk.kty, n: jwk.n, e: jwk.e }, algorithm, false, ['verify']);
  return crypto.subtle.verify(algorithm, key, bytes(signature.value), content);
}

export default async function sign({ run, keys }) {
  const id = `${run}-${exec.scenario.iterationInTest}`;
  // A payload is signed as it is, so that no canonical form has to be made here.
  const content = `invoice ${id}: 1250.00 EUR to DE89370400440532013000`;
  const payload = encoding.b64encode(content);
  const body = JSON.stringify({ key: ALIAS, transaction_id: id, payload });
  const answer = http.post(`${URL}/v1/sign`, body, { headers: HEADERS });
  if (!check(answer, { 'answered 200': ({ status }) => status === 200 })) {
    return;
  }
  const { transaction_id: named, signature } = answer.json();
  const right = named === id && (await verifies(signature, bytes(payload), keys));
  check(right, { 'signature verifies': (is) => is });
  (right ? verified : wrong).add(1);
}
