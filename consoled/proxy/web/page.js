// SPDX-License-Identifier: Apache-2.0
// What the console pages share: the bar, the state, the websocket, and why a console ended.

const root = document.documentElement;
const element = (id) => document.getElementById(id);

export const query = new URLSearchParams(location.search);
export const screen = element('screen');

// Why a websocket that had opened was closed: [reason, words if the proxy gave none, worth another try].
const CLOSED = {
  1000: ['closed', 'The console was closed.', true],
  1001: ['connection_lost', 'The connection was given up.', true],
  1002: ['protocol_error', 'The connection broke: this page and the proxy disagreed.', true],
  1005: ['closed', 'The console was closed.', true],
  1006: ['connection_lost', 'The connection was lost.', true],
  1009: ['message_too_big', 'The connection broke: a message was too big.', true],
  1011: ['console_ended', 'The guest closed its console, or it failed.', true],
  1012: ['proxy_restart', 'The console proxy is being restarted.', true],
  1013: ['try_later', 'The console service can not be reached. Try again later.', true],
  4401: ['invalid_token', 'The console token is not valid or has expired.', false],
  4403: ['revoked', 'Your access to this console was taken back.', false],
  4404: ['console_gone', 'The console does not exist any more.', false],
  4408: ['session_over', 'The time of this session is over.', true],
  4409: ['taken_over', 'Somebody else has taken this console over.', true],
};

// --- the state, for the eyes, for screen readers, and for tests ---

function show(state, text, reason = '') {
  root.dataset.state = state;
  root.dataset.reason = reason;
  element('state').textContent = text;
  for (const button of document.querySelectorAll('.needs-console')) {
    button.disabled = state !== 'connected';
  }
}

function connecting() {
  element('notice').hidden = true;
  element('why').textContent = '';
  show('connecting', 'Connecting…');
}

export function connected() {
  show('connected', 'Connected');
}

function ended({ reason, text, retryable }, again) {
  for (const dialog of document.querySelectorAll('dialog[open]')) {
    dialog.close();
  }
  const begun = root.dataset.state === 'connected';
  show('ended', begun ? 'Ended' : 'Not connected', reason);
  element('outcome').textContent = begun ? 'The console has ended' : 'The console can not be opened';
  element('why').textContent = text;
  const retry = element('retry');
  retry.hidden = !retryable;
  retry.onclick = again;
  element('notice').hidden = false;
  if (retryable) {
    retry.focus();
  }
}

/** Open a console by `open`, which resolves to how it ended; again as often as the user wants. */
export async function run(open) {
  connecting();
  let how;
  try {
    how = await open();
  } catch (error) {
    how = { reason: error.reason ?? 'page_error', text: error.message, retryable: false };
    if (!(error instanceof AddressError)) {
      how.text = 'This page does not work here: ' + error.message;
      console.error(error);
    }
  }
  ended(how, () => run(open));
}

// --- the websocket ---

class AddressError extends Error {
  reason = 'bad_address';
}

/**
 * Return the websocket's URL: `path` as noVNC has it, else `token`. Both stay on this host.
 *
 * There is no argument for a host: an address that is sent to somebody must not make this page, with that
 * person's keystrokes, talk to somewhere else.
 */
export function consoleUrl() {
  const path = query.get('path');
  const token = query.get('token');
  if (path === null && token === null) {
    throw new AddressError('The address of this page has no token. Open the console anew where you found it.');
  }
  const base = path === null ? new URL('./', location.href) : new URL('/', location.href);
  const url = new URL(path ?? '?token=' + encodeURIComponent(token), base);
  if (url.origin !== location.origin || url.username !== '' || url.password !== '') {
    throw new AddressError('The address of this page leads to another host.');
  }
  url.hash = '';
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  return url.href;
}

export function openSocket(url) {
  const socket = new WebSocket(url, ['binary']);
  socket.binaryType = 'arraybuffer';
  return socket;
}

/** Resolve to how a websocket ended. Must be called before it can have opened. */
export function ending(socket) {
  return new Promise((resolve) => {
    let opened = false;
    socket.addEventListener('open', () => { opened = true; });
    socket.addEventListener('close', (event) => resolve(opened ? closed(event) : refused(socket.url)));
  });
}

function closed(event) {
  const [reason, text, retryable] = CLOSED[event.code] ?? ['closed', 'The console was closed.', true];
  return { reason, text: event.reason || text, retryable };
}

// A browser hides the answer that a websocket was refused with, but not that to the same question over HTTP.
async function refused(socketUrl) {
  const url = new URL(socketUrl);
  url.protocol = location.protocol;
  let response;
  try {
    response = await fetch(url, {
      cache: 'no-store',
      headers: { Accept: 'application/json' },
      redirect: 'error',
      signal: AbortSignal.timeout(15000),
    });
  } catch {
    return { reason: 'proxy_unreachable', text: 'The console proxy does not answer.', retryable: true };
  }
  const answer = await response.json().catch(() => null);
  const told = typeof answer?.code === 'string' && typeof answer.reason === 'string';
  if (told && answer.code !== 'upgrade_required') {
    return { reason: answer.code, text: answer.reason, retryable: answer.retryable === true };
  }
  const text = 'The console could not be reached. Something on the way may be blocking websockets.';
  return { reason: 'connection_failed', text, retryable: true };
}

// --- the bar ---

export function onButton(id, action) {
  element(id).addEventListener('click', action);
}

/**
 * Ask for text, beginning with `initial`. Resolves to { action, text }, or null if the user thought better
 * of it. The actions are the values of the dialog's buttons.
 */
export function askText(initial = '') {
  const dialog = element('text-dialog');
  const input = element('text');
  input.value = initial;
  dialog.returnValue = '';
  dialog.showModal();
  input.focus();
  input.select();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      const text = input.value;
      input.value = '';  // it may be a password
      resolve(dialog.returnValue && text ? { action: dialog.returnValue, text } : null);
    }, { once: true });
  });
}

async function toggleFullscreen() {
  if (document.fullscreenElement) {
    await document.exitFullscreen();
    return;
  }
  await root.requestFullscreen();
  // where a browser has it, Escape and Alt-Tab reach the guest too; holding Escape leaves
  await navigator.keyboard?.lock?.().catch(() => {});
}

/** Keys go to the guest, Tab too. This combination brings a user without a mouse back to the bar. */
function watchForTheWayOut() {
  window.addEventListener('keydown', (event) => {
    if (event.code === 'KeyB' && event.ctrlKey && event.altKey && event.shiftKey) {
      event.preventDefault();
      event.stopImmediatePropagation();
      window.dispatchEvent(new Event('blur'));  // lets noVNC release the keys that it believes held
      document.querySelector('.bar button:enabled')?.focus();
    }
  }, { capture: true });
}

function prepare() {
  const title = (query.get('title') ?? '').trim().slice(0, 120);
  if (title) {
    element('title').textContent = title;
    document.title = title;
  }
  const fullscreen = element('fullscreen');
  fullscreen.hidden = !document.fullscreenEnabled;
  fullscreen.addEventListener('click', () => toggleFullscreen().catch(() => {}));
  document.addEventListener('fullscreenchange', () => {
    fullscreen.setAttribute('aria-pressed', String(document.fullscreenElement !== null));
  });
  watchForTheWayOut();
}

prepare();
