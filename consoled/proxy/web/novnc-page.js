// SPDX-License-Identifier: Apache-2.0
// Runs first in the pages that come with noVNC (vnc.html, vnc_lite.html), for what noVNC 1.3 cannot do by itself.

{
  // noVNC keeps its settings in localStorage, which may be forbidden: then they last as long as the page
  try {
    window.localStorage.getItem('');
  } catch {
    const kept = new Map();
    const localStorage = {
      getItem: (name) => kept.get(name) ?? null,
      setItem: (name, value) => { kept.set(name, String(value)); },
      removeItem: (name) => { kept.delete(name); },
    };
    Object.defineProperty(window, 'localStorage', { value: localStorage });
  }

  // the websocket is beside the page, for load balancers with a path, and its URL, which is logged, has no token
  const here = new URL('./', location.href);
  const construct = (Socket, [address, protocols = []]) => {
    const url = new URL(address, here);
    if (url.host !== here.host) {
      return new Socket(address, protocols);  // which the Content-Security-Policy forbids
    }
    if (!url.pathname.startsWith(here.pathname)) {
      url.pathname = here.pathname + url.pathname.slice(1);
    }
    const offered = [protocols].flat();
    // old dashboards hand out vnc_lite.html?token=...: since 1.1, noVNC passes on the argument `path` only
    const token = url.searchParams.get('token') ?? new URLSearchParams(location.search).get('token');
    if (/^[A-Za-z0-9_-]+$/.test(token ?? '')) {
      url.searchParams.delete('token');
      offered.push('consoled.token.' + token, ...(offered.length ? [] : ['binary']));
    }
    const socket = new Socket(url, offered);
    document.getElementById('consoled-reason')?.remove();
    let opened = false;
    socket.addEventListener('open', () => { opened = true; });
    socket.addEventListener('close', async (event) => {
      tell(opened ? event.reason : await refusal(url, token).catch(() => ''));
    });
    return socket;
  };

  // noVNC does not say why a console ended, or was refused
  const tell = (reason) => {
    if (reason) {
      const notice = document.createElement('p');
      notice.id = 'consoled-reason';
      notice.setAttribute('role', 'alert');
      notice.textContent = reason;
      notice.style.cssText = 'position: fixed; inset: 40% 10% auto; z-index: 999; padding: 1em; text-align: center;'
        + ' background: #7f1d1d; color: #fff; font: 16px sans-serif;';
      document.body.append(notice);
    }
  };
  const refusal = async (socketUrl, token) => {
    const url = new URL(socketUrl);
    url.protocol = here.protocol;
    const headers = { Accept: 'application/json', ...(token === null ? {} : { 'Consoled-Token': token }) };
    const answer = await (await fetch(url, { cache: 'no-store', headers, redirect: 'error' })).json();
    if (token === null && answer.code === 'not_found') {
      return 'The address of this page has no token. Open the console again from your dashboard.';
    }
    return answer.code === 'upgrade_required' ? '' : answer.reason;
  };
  window.WebSocket = new Proxy(window.WebSocket, { construct });
}
