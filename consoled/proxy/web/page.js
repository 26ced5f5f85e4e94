// SPDX-License-Identifier: Apache-2.0
// Shared by the console pages: the bar, the state, the websocket, and the reason why a console ended.

const root = document.documentElement;
const element = (id) => document.getElementById(id);

export const query = new URLSearchParams(location.search);
export const screen = element('screen');

// By the close code of a websocket that had opened: [reason, text if the proxy sends none, retryable].
const CLOSED = {
  1000: ['closed', 'The console was closed.', true],
  1001: ['connection_lost', 'The connection timed out.', true],
  1002: ['protocol_error', 'The connection was closed because of a protocol error.', true],
  1005: ['closed', 'The console was closed.', true],
  1006: ['connection_lost', 'The connection was lost.', true],
  1009: ['message_too_big', 'The connection was closed because a message was too big.', true],
  1011: ['console_ended', 'The guest closed its console, or the console failed.', true],
  1012: ['proxy_restart', 'The console proxy is restarting.', true],
  1013: ['try_later', 'The console service is unavailable. Try again later.', true],
  4401: ['invalid_token', 'The console token is not valid or has expired.', false],
  4403: ['revoked', 'Your access to this console was revoked.', false],
  4404: ['console_gone', 'The console has moved or no longer exists.', false],
  4408: ['session_over', 'The session has expired.', true],
  4409: ['taken_over', 'Another user has taken over this console.', true],
};

// --- the state: for users, screen readers and tests ---

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
  const wasConnected = root.dataset.state === 'connected';
  show('ended', wasConnected ? 'Disconnected' : 'Not connected', reason);
  element('outcome').textContent = wasConnected ? 'Console disconnected' : 'Cannot open the console';
  element('why').textContent = text;
  const retry = element('retry');
  retry.hidden = !retryable;
  retry.onclick = again;
  element('notice').hidden = false;
  if (retryable) {
    retry.focus();
  }
}

/** Run `open`, which resolves to how the console ended, and again whenever the user wants to retry. */
export async function run(open) {
  connecting();
  let how;
  try {
    how = await open();
  } catch (error) {
    how = { reason: error.reason ?? 'page_error', text: error.message, retryable: false };
    if (!(error instanceof AddressError)) {
      how.text = 'An error occurred in this page: ' + error.message;
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
 * Return the URL of the websocket, from the query argument `path` as in noVNC, or else `token`.
 *
 * It is always on the host of this page. There is no argument for another host: a link must not make this
 * page send the keystrokes of whoever opens it elsewhere.
 */
export function consoleUrl() {
  const path = query.get('path');
  const token = query.get('token');
  if (path === null && token === null) {
    const text = 'The address of this page has no token. Open the console again from your dashboard.';
    throw new AddressError(text);
  }
  const base = path === null ? new URL('./', location.href) : new URL('/', location.href);
  const url = new URL(path ?? '?token=' + encodeURIComponent(token), base);
  if (url.origin !== location.origin || url.username !== '' || url.password !== '') {
    throw new AddressError('The address of this page points to another host.');
  }
  url.hash = '';
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  return url.href;
}

/** Open a websocket with one of these subprotocols, the preferred one first, or else with `binary`. */
export function openSocket(url, ...preferred) {
  const socket = new WebSocket(url, [...preferred, 'binary']);
  socket.binaryType = 'arraybuffer';
  return socket;
}

/** Resolve to how a websocket ended. Call it before the websocket can have opened. */
export function ending(socket) {
  return new Promise((resolve) => {
    let opened = false;
    socket.addEventListener('open', () => { opened = true; });
    socket.addEventListener('close', (event) => resolve(opened ? closed(event) : refused(socket.url)));
  });
}

// What a library closes a websocket with, on either side: its own words are not for users.
const BY_LIBRARIES = [1002, 1003, 1007, 1008, 1009, 1010];

function closed(event) {
  const [reason, text, retryable] = CLOSED[event.code] ?? ['closed', 'The console was closed.', true];
  return { reason, text: (!BY_LIBRARIES.includes(event.code) && event.reason) || text, retryable };
}

// Browsers hide the response that refused a websocket, so ask for the reason with an ordinary request.
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
    return { reason: 'proxy_unreachable', text: 'The console proxy is not responding.', retryable: true };
  }
  const answer = await response.json().catch(() => null);
  const hasReason = typeof answer?.code === 'string' && typeof answer.reason === 'string';
  if (hasReason && answer.code !== 'upgrade_required') {
    return { reason: answer.code, text: answer.reason, retryable: answer.retryable === true };
  }
  const text = 'Cannot connect to the console. A firewall or proxy on the way may be blocking websockets.';
  return { reason: 'connection_failed', text, retryable: true };
}

// --- the bar ---

export function onButton(id, action) {
  element(id).addEventListener('click', action);
}

/**
 * Ask for a text, `initial` by default. Resolve to { action, text }, or to null if the user cancels. The
 * action is the value of the dialog's button.
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
  // where supported, Escape and Alt-Tab then go to the guest, too; holding Escape leaves fullscreen
  await navigator.keyboard?.lock?.().catch(() => {});
}

/** Move the focus to the bar on Ctrl+Alt+Shift+B, for users without a mouse: Tab goes to the guest. */
function addBarShortcut() {
  window.addEventListener('keydown', (event) => {
    if (event.code === 'KeyB' && event.ctrlKey && event.altKey && event.shiftKey) {
      event.preventDefault();
      event.stopImmediatePropagation();
      window.dispatchEvent(new Event('blur'));  // makes noVNC release the keys that it considers held
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
  addBarShortcut();
}

prepare();
