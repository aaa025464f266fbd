// Stores, reads and at the end erases predictions: `k6 run -e RESULTS=http://localhost:5002 tests/load/k6/results.js`
import http from 'k6/http';
import { check } from 'k6';
import exec from 'k6/execution';

export const options = {
  scenarios: { closed: { executor: 'constant-vus', vus: Number(__ENV.CALLERS || 16), duration: __ENV.DURATION || '10s' } },
  thresholds: { checks: ['rate==1'] },
};

const json = { headers: { 'Content-Type': 'application/json' } };
// Of this run alone: each caller makes the script's constants anew, and this once.
export function setup() {
  return `${Date.now()}`;
}

export default function (run) {
  const id = `load-${run}-${__VU}-${exec.vu.iterationInScenario}`;
  const prediction = {
    request_id: id,
    user_id: `load-${run}-${__VU}`,
    model_name: 'load',
    model_version: '1',
    inference_time_ms: 7.5,
    predictions: [{ class_name: 'bus', confidence: 0.97, bbox: { x_min: 0.1, y_min: 0.2, x_max: 0.8, y_max: 0.9 } }],
  };
  const stored = http.post(`${__ENV.RESULTS}/predictions`, JSON.stringify(prediction), json);
  check(stored, { stored: (r) => r.status === 201 });
  const read = http.get(`${__ENV.RESULTS}/predictions/${id}`, { tags: { name: 'GET /predictions/{id}' } });
  check(read, { read: (r) => r.status === 200 && r.json('request_id') === id });
}

export function teardown(run) {
  for (let user = 1; user <= Number(__ENV.CALLERS || 16); user++) {
    const erased = http.del(`${__ENV.RESULTS}/predictions/user/load-${run}-${user}`);
    check(erased, { erased: (r) => r.status === 200 || r.status === 503 });
  }
}
