// The page, live. Without this script everything works too; with it figures move,
// questions come in a dialog, and what has changed is fetched as it changes.
(() => {
'use strict'

const root = document.documentElement
const $ = (s, at = document) => at.querySelector(s)
const $$ = (s, at = document) => at.querySelectorAll(s)
// Addresses are relative to the folder of the pages, which may be below a prefix of
// a proxy's. That begins with location.origin, as fetch refuses addresses with a
// password, such as the page's own may be.
const folder = new URL(root.dataset.root, location.origin + location.pathname)
const url = address => new URL(address, folder).href
const live = () => document.getElementById('live')

// ---- texts: the same as text.go makes ----

const count = n => Math.trunc(n).toString().replace(/\B(?=(\d{3})+$)/g, ',')
const decimal = f => f < 0.05 ? '0' : f < 9.95 ? f.toFixed(1) : count(Math.round(f))
const amount = f => {
  if (f < 999.5) return Math.round(f) + ' B'
  for (const unit of ['kB', 'MB', 'GB', 'TB']) {
    f /= 1000
    if (f < 999.5) return decimal(f) + ' ' + unit
  }
  return decimal(f / 1000) + ' PB'
}
const span = ms => {
  const s = Math.floor(ms / 1000)
  return s < 1 ? 'now' : s < 120 ? s + ' s' : s < 7200 ? Math.floor(s / 60) + ' min' : s < 172800 ? Math.floor(s / 3600) + ' h' : Math.floor(s / 86400) + ' d'
}
const left = ms => ms < 1000 ? 'a moment' : span(ms)
const took = ms => ms == null ? '' : ms < 0.995 ? ms.toFixed(2) + ' ms' : ms < 9.95 ? ms.toFixed(1) + ' ms' : count(Math.round(ms)) + ' ms'
const shown = {
  sessions: count, total: count, failures: count, refused: count, rate: f => decimal(f) + '/s',
  in: amount, out: amount, in_rate: f => amount(f) + '/s', out_rate: f => amount(f) + '/s', connect_ms: took, check_ms: took, turnaround_ms: took,
  waiting: count, most: count, wait_ms: took, copies: count, mirrored: count, bytes: amount, lost: count,
}
const text = (el, s) => { if (el && el.textContent !== s) el.textContent = s }

// ---- times of day: in the zone of the browser, which the head of the page names ----

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone
const day = at => at.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' })
function clocks(at) {
  text($('#zone'), zone)
  const today = day(new Date())
  for (const el of $$('time[data-clock]', at)) {
    const when = new Date(+el.dataset.clock)
    text(el, (day(when) === today ? '' : day(when) + ' ') + time(when, true))
    el.title = when.toString()
  }
}

// ---- what is folded stays folded ----

const kept = {
  all: (() => { try { return JSON.parse(localStorage.getItem('txlb.folds')) || {} } catch { return {} } })(),
  set(key, open) {
    this.all[key] = open
    const keys = Object.keys(this.all)
    for (const old of keys.slice(0, Math.max(0, keys.length - 500))) delete this.all[old]
    try { localStorage.setItem('txlb.folds', JSON.stringify(this.all)) } catch { /* private window */ }
  },
  apply(at) {
    if (new URLSearchParams(location.search).get('more') === null) {
      for (const d of $$('details[data-keep]', at)) {
        const open = this.all[d.dataset.keep]
        if (open !== undefined && d.open !== open) d.open = open
      }
    }
  },
}
document.addEventListener('click', e => {
  const summary = e.target.closest('details[data-keep] > summary')
  if (summary) kept.set(summary.parentNode.dataset.keep, !summary.parentNode.open)
})

// ---- figures: kept until their row is seen, written once a frame ----

const rows = new Map() // id -> the newest figures
const waiting = new Set() // ids whose figures have not been written
const visible = new Set() // rows on the screen
let clock = 0 // the server's, minus ours
let newest = null
let frame = 0

const seen = new IntersectionObserver(entries => {
  for (const e of entries) {
    if (e.isIntersecting) { visible.add(e.target); if (rows.has(e.target.id)) waiting.add(e.target.id) } else visible.delete(e.target)
  }
  draw()
}, { rootMargin: '200px' })

function draw() {
  if (!frame) frame = requestAnimationFrame(write)
}

function write() {
  frame = 0
  const now = Date.now() + clock
  for (const tr of visible) {
    if (!tr.isConnected) { visible.delete(tr); continue }
    const f = rows.get(tr.id)
    if (f && waiting.delete(tr.id)) {
      for (const el of $$('[data-f]', tr)) {
        const name = el.dataset.f
        if (name === 'checked') el.dataset.at = f.checked
        else if (name === 'elsewhere') text(el, f.elsewhere || '')
        else if (name === 'check_ms') { if (f.check_ms != null) text(el, took(f.check_ms)) } else {
          text(el, shown[name](f[name]))
          if (el.tagName === 'SPAN') el.classList.toggle('zero', !f[name])
        }
      }
    }
    for (const el of $$('time[data-at]', tr)) {
      if (el.dataset.at !== '0') text(el, span(Math.max(0, now - el.dataset.at)))
    }
  }
  for (const el of $$('time[data-until]')) text(el, left(Math.max(0, el.dataset.until - now)))
  for (const el of $$('#state .config time')) text(el, span(Math.max(0, now - el.dataset.at)))
  if (newest) {
    for (const id in newest.services) {
      const f = newest.services[id]
      const head = $('#' + id + ' > .service-head')
      if (head) for (const el of $$('[data-s]', head)) {
        const name = el.dataset.s
        text(el, name === 'rate' ? decimal(f.rate) : shown[name](f[name]) || '–')
      }
      for (const mirror in f.mirrors) {
        for (const el of $$('[data-mirror="' + mirror + '"] [data-m]')) text(el, shown[el.dataset.m](f.mirrors[mirror][el.dataset.m]))
      }
      for (const group in f.queues) {
        for (const el of $$('[data-queue="' + group + '"] [data-q]')) text(el, shown[el.dataset.q](f.queues[group][el.dataset.q]) || '–')
      }
    }
    for (const el of $$('[data-total]')) {
      const name = el.dataset.total
      text(el, name === 'rate' ? decimal(newest.rate) : shown[name](newest[name]))
    }
  }
}

// watch takes up rows that have come with a new part of the page.
function watch(at) {
  seen.disconnect()
  visible.clear()
  for (const tr of $$('.hosts tbody tr[id]', at)) seen.observe(tr)
}

// ---- charts ----

const whole = v => v >= 1 || v === 0 ? count(v) : decimal(v)
const kinds = [ // least: the least that the axis ends at
  { title: 'New sessions/s', series: ['rate'], value: decimal, least: 4, mark: whole },
  { title: 'Sessions', series: ['sessions'], value: count, least: 4, mark: whole },
  { title: 'Bytes/s', series: ['in_rate', 'out_rate'], names: ['in', 'out'], value: amount, least: 1000, mark: amount },
  { title: 'Connect time', series: ['connect_ms'], value: v => took(v) || '–', least: 0.5, mark: v => v + ' ms' },
  { title: 'Turnaround', series: ['turnaround_ms'], value: v => took(v) || '–', least: 0.5, mark: v => v + ' ms' },
]
const kindsOfHost = kinds.map(k => k.series[0] === 'connect_ms' ? { ...k, series: ['connect_ms', 'check_ms'], names: ['clients', 'checks'] } : k)
const colours = { rate: 'rate', sessions: 'sessions', in_rate: 'in', out_rate: 'out', connect_ms: 'connect', check_ms: 'in', turnaround_ms: 'out' }
const keep = 600 // values
const charts = new Map() // element -> {id, kind, data, plots}

const inView = new IntersectionObserver(entries => {
  for (const e of entries) {
    const c = charts.get(e.target)
    if (!c) continue
    c.inView = e.isIntersecting
    if (c.inView) redraw(c)
  }
})

function chartsIn(at) {
  for (const el of $$('.charts', at)) {
    if (charts.has(el)) continue
    const c = { el, id: el.dataset.of, kind: el.dataset.kind, data: { time: [] }, plots: [], inView: false }
    for (const k in colours) c.data[k] = []
    charts.set(el, c)
    el.hidden = false
    inView.observe(el)
    load(c)
  }
  for (const [el, c] of charts) {
    if (el.isConnected) continue
    for (const p of c.plots) p.u.destroy()
    inView.unobserve(el)
    charts.delete(el)
  }
}

async function load(c) {
  try {
    const r = await fetch(url('history?id=' + encodeURIComponent(c.id)))
    if (!r.ok) throw new Error(r.status)
    const h = await r.json()
    const s = h.series[c.id]
    if (s) {
      const n = s.rate.length
      const later = c.data.time.filter(t => t * 1000 > h.time).length
      const skip = c.data.time.length - later
      c.data.time = [...Array.from({ length: n }, (_, i) => (h.time - (n - 1 - i) * h.step) / 1000), ...c.data.time.slice(skip)]
      for (const k in colours) c.data[k] = [...(s[k] || Array(n).fill(null)), ...c.data[k].slice(skip)]
    }
  } catch { /* it begins now */ }
  plot(c)
}

function plot(c) {
  const style = getComputedStyle(root)
  const colour = name => style.getPropertyValue('--' + name).trim()
  for (const p of c.plots) p.u.destroy()
  c.el.replaceChildren()
  c.plots = (c.kind === 'host' ? kindsOfHost : kinds).map(k => {
    const box = document.createElement('div')
    box.className = 'chart'
    const head = document.createElement('h4')
    const title = document.createElement('span')
    title.textContent = k.title
    head.append(title)
    const now = k.series.map((s, i) => {
      const key = document.createElement('span')
      key.className = 'key c-' + s
      if (k.names) key.append(k.names[i] + ' ')
      const b = document.createElement('b')
      key.append(b)
      head.append(key)
      return b
    })
    box.append(head)
    c.el.append(box)
    const axis = { stroke: colour('muted'), grid: { stroke: colour('line'), width: 1 }, ticks: { show: false }, font: '11px system-ui, sans-serif' }
    const u = new uPlot({
      width: Math.max(120, box.clientWidth), height: 84, padding: [6, 24, 0, 0],
      legend: { show: false }, cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
      scales: { x: { time: true }, y: { range: (_, lo, hi) => [0, Math.max(hi * 1.1, k.least)] } },
      axes: [
        { ...axis, size: 18, gap: 2, space: 80, values: (u, ts) => ts.map(t => u.valToPos(t, 'x') < 24 ? '' : time(t * 1000, ts.length > 1 && ts[1] - ts[0] < 60)) },
        { ...axis, size: 50, gap: 3, space: 26, values: (_, vs) => vs.map(v => v === 0 ? '0' : k.mark(v)) },
      ],
      series: [{}, ...k.series.map(s => ({ stroke: colour('chart-' + colours[s]), width: 1.5, spanGaps: s === 'check_ms', points: { show: false } }))],
      hooks: { setCursor: [u => legend(c, k, now, u.cursor.idx)] },
    }, [c.data.time, ...k.series.map(s => c.data[s])], box)
    return { k, u, box, now }
  })
  redraw(c)
}

// time writes a time of the day.
const time = (ms, seconds) => new Date(ms).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: seconds ? '2-digit' : undefined, hourCycle: 'h23' })

// legend shows the values under the pointer, or the last ones.
function legend(c, k, now, idx) {
  k.series.forEach((s, i) => {
    const list = c.data[s]
    const v = list[idx ?? list.length - 1]
    text(now[i], v == null ? '–' : k.value(v))
  })
}

function redraw(c) {
  if (!c.inView || document.hidden) return
  for (const p of c.plots) {
    const width = Math.max(120, p.box.clientWidth)
    if (p.u.width !== width) p.u.setSize({ width, height: 84 })
    p.u.setData([c.data.time, ...p.k.series.map(s => c.data[s])])
    legend(c, p.k, p.now, p.u.cursor.idx)
  }
}

function feed(f) {
  for (const c of charts.values()) {
    const v = c.kind === 'host' ? rows.get(c.id) : f.services[c.id]
    const t = f.time / 1000
    if (!v || c.data.time.length && t <= c.data.time[c.data.time.length - 1]) continue
    c.data.time.push(t)
    for (const k in colours) c.data[k].push(v[k] ?? null)
    if (c.data.time.length > 2 * keep) {
      c.data.time = c.data.time.slice(-keep)
      for (const k in colours) c.data[k] = c.data[k].slice(-keep)
    }
    redraw(c)
  }
}

matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { for (const c of charts.values()) plot(c) })
addEventListener('resize', () => { for (const c of charts.values()) redraw(c) })

// ---- the changing part ----

// How long an answer may take. One that is broken off doubles it: what is asked for again, and
// broken off again, would keep a busy txlb busy and never arrive.
const patient = 15000, mostPatient = 120000
let patientNow = patient
let wanted = null // the address of the changing part, from when it is asked for
const under = new Map() // target -> the request that is on its way for it

// get fetches a part of the page and puts it in place; a newer one for the same
// place overtakes it.
async function get(address, target, style) {
  under.get(target)?.abort()
  if (target === 'live') wanted = address
  const mine = new AbortController()
  under.set(target, mine)
  const late = setTimeout(() => { patientNow = Math.min(2 * patientNow, mostPatient); mine.abort() }, patientNow)
  try {
    const r = await fetch(url(address), { headers: { 'HX-Request': 'true' }, signal: mine.signal })
    const html = await r.text()
    patientNow = patient
    if (under.get(target) !== mine) return false
    if (!(r.headers.get('Content-Type') || '').startsWith('text/html')) { say('critical', html.trim().slice(0, 500)); return false }
    if (target === 'plain') {
      if (r.ok) place(html)
    } else if (target === 'live') {
      if (!r.ok || !live()) return false
      const held = dialog.open ? null : hold()
      place(html)
      taken()
      if (held) focus(held)
    } else {
      htmx.swap('#' + target, html, { swapStyle: style, swapDelay: 0, settleDelay: 0 })
      clocks(document)
    }
    return true
  } catch (e) {
    if (under.get(target) === mine && target === 'dialog-body') say('critical', 'txlb did not answer.')
    return false
  } finally {
    clearTimeout(late)
    if (under.get(target) === mine) {
      under.delete(target)
      if (again && target !== 'dialog-body') { again = false; soon() }
    }
  }
}

const controls = 'a, button, summary, input, select'
let lastFetch = 0

let due = 0
let again = false // when the refresh that is on its way has ended

// soon refreshes at once, but not more than twice a second.
function soon() {
  if (!due) due = setTimeout(() => { due = 0; refresh() }, Math.max(0, lastFetch + 500 - Date.now()))
}

// refresh fetches the changing part. It breaks off none that is on its way: where
// answers take longer than changes, no answer would ever arrive.
function refresh() {
  if (document.hidden) return
  const target = live() ? 'live' : $('#plain[data-again]') ? 'plain' : ''
  if (!target) return
  if (under.has(target)) { again = true; return }
  lastFetch = Date.now()
  get(target === 'live' ? wanted || live().dataset.address : location.pathname + location.search, target)
}

// What a form has posted is answered with a message. A refusal is shown where
// the question is.
document.addEventListener('htmx:beforeSwap', e => {
  const status = e.detail.xhr.status
  if (!(e.detail.xhr.getResponseHeader('Content-Type') || '').startsWith('text/html')) {
    e.detail.shouldSwap = false
    say('critical', e.detail.xhr.responseText.trim().slice(0, 500) || 'Rejected: ' + status)
    return
  }
  e.detail.shouldSwap = true
  e.detail.isError = false
  if (e.detail.serverResponse.includes('data-level="critical"')) {
    const answer = $('#dialog[open] .answer')
    if (answer) { e.detail.target = answer; e.detail.swapOverride = 'innerHTML' }
  }
})

document.addEventListener('htmx:afterRequest', e => {
  const message = $('#dialog[open] .answer .message:not(.seen)') || $('#messages .message:not(.seen)')
  if (!message) return
  closable(message)
  for (const old of [...$$('#messages .message')].slice(3)) old.remove()
  if (message.dataset.level !== 'critical') {
    shut()
    e.detail.elt.closest('.message')?.remove() // it has been undone
  }
  refresh()
})

// hold tells where the focus is, in words that outlast a new changing part, and
// focus takes it back there if it has been lost.
function hold() {
  const on = document.activeElement
  const row = on && on.closest('#live [id]')
  return row && { row: row.id, nth: [...$$(controls, row)].indexOf(on) }
}

function focus(held) {
  const row = document.getElementById(held.row)
  const el = row && (held.nth < 0 ? row : $$(controls, row)[held.nth])
  if (el && (document.activeElement === document.body || !document.activeElement)) el.focus({ preventScroll: true })
}

// place puts the changing part in the place of the old. It does of what htmx
// does for any content only what this one needs, which is a matter of a second
// where there are many hosts.
function place(html) {
  const t = document.createElement('template')
  t.innerHTML = html
  const parts = [...t.content.children]
  for (const kept of $$('[hx-preserve]', t.content)) {
    const old = document.getElementById(kept.id)
    if (old) kept.replaceWith(old)
  }
  for (const part of parts) {
    const old = document.getElementById(part.id)
    if (old) old.replaceWith(part)
    for (const form of $$('form[hx-post]', part)) htmx.process(form)
  }
  clocks(document)
}

// taken looks after a part that has just come.
function taken() {
  const at = live()
  kept.apply(document)
  watch(at)
  chartsIn(document)
  const state = $('#state')
  document.title = state.dataset.title
  const icon = $('#icon')
  const href = icon.dataset[state.dataset.level] || icon.dataset.fine
  if (icon.getAttribute('href') !== href) icon.setAttribute('href', href)
  draw()
}

// Links that show the same page otherwise, and the filter, keep the address.
document.addEventListener('click', e => {
  const a = e.target.closest('a')
  if (!a || e.ctrlKey || e.metaKey || e.shiftKey || e.button !== 0) return
  if (a.hasAttribute('data-dialog')) {
    e.preventDefault()
    ask(a.getAttribute('href'))
  } else if (a.hasAttribute('data-live') && live()) {
    e.preventDefault()
    const to = new URL(a.href)
    history.replaceState(null, '', to.pathname + to.search)
    $('#filter-sort').value = to.searchParams.get('sort') || ''
    get(to.pathname + to.search, 'live')
  } else if (a.hasAttribute('data-close') && $('#dialog[open]')) {
    e.preventDefault()
    shut()
  } else if (a.hash && a.pathname === location.pathname && a.search === location.search || a.getAttribute('href')?.startsWith('#')) {
    const to = document.getElementById(decodeURIComponent(a.hash.slice(1)))
    for (let d = to && to.closest('details'); d; d = d.parentElement.closest('details')) d.open = true
  }
})
const filter = $('#filter')
let typing = 0
function choose() {
  const v = new URLSearchParams()
  for (const [name, value] of new FormData(filter)) if (value) v.set(name, value)
  const to = v.size ? './?' + v : './'
  history.replaceState(null, '', to)
  get(to, 'live')
}
if (filter) {
  filter.addEventListener('input', () => { clearTimeout(typing); typing = setTimeout(choose, 120) })
  filter.addEventListener('submit', e => { e.preventDefault(); clearTimeout(typing); choose() })
}

// ---- the dialog ----

const dialog = $('#dialog')

let opener = null // where the focus was before the dialog

async function ask(address) {
  if (!await get(address, 'dialog-body', 'innerHTML')) return
  if (!dialog.open) {
    opener = hold()
    dialog.showModal()
  }
  dialog.scrollTop = 0
  chartsIn(document)
  // Where a slip of the finger would do harm, the way out comes first.
  const first = $('button.danger', dialog) && !$('.forms', dialog) ? $('[data-close]', dialog) : $('.forms', dialog) ? $('h1', dialog) : $('.fields input:not([type=hidden]), .fields button', dialog)
  if (first) first.focus()
}

function shut() {
  if (dialog.open) dialog.close()
}
dialog.addEventListener('close', () => {
  $('#dialog-body').replaceChildren()
  chartsIn(document)
  if (opener) focus(opener)
  opener = null
})
dialog.addEventListener('click', e => { if (e.target === dialog) shut() })

// ---- messages ----

function closable(message) {
  message.classList.add('seen')
  const b = document.createElement('button')
  b.type = 'button'
  b.className = 'close'
  b.setAttribute('aria-label', 'Dismiss')
  b.textContent = '✕'
  b.addEventListener('click', () => message.remove())
  message.append(b)
}

function say(level, words) {
  const m = document.createElement('div')
  m.className = 'message ' + level
  m.dataset.level = level
  const p = document.createElement('p')
  p.textContent = words
  m.append(p)
  const answer = $('#dialog[open] .answer')
  if (answer) answer.replaceChildren(m)
  else $('#messages').prepend(m)
  closable(m)
}
for (const event of ['htmx:sendError', 'htmx:timeout']) {
  document.addEventListener(event, () => {
    say('critical', 'txlb did not answer. The change may or may not have been made; check when the page is live again.')
  })
}

// ---- live ----

const patience = 5000 // without a word for so long, the connection is lost
let enough = 2 * patience // without a word for so long, it is tried again; doubles until there is one
let source = null
let heard = 0
let lost = 0 // since when; 0: live
let boot = root.dataset.boot
let retry = 0

function banner(kind, words) {
  const el = $('#connection')
  el.className = 'connection ' + kind
  text(el, words)
}

// A browser opens six connections to a server, and a stream keeps one. So only a
// visible tab has a stream; the others catch up when they are looked at.
function connect() {
  clearTimeout(retry)
  if (source) source.close()
  source = null
  if (document.hidden) return
  source = new EventSource(url('api/v1/events'))
  heard = Date.now()
  source.addEventListener('figures', e => arrived(JSON.parse(e.data)))
  for (const news of ['change', 'health', 'order']) source.addEventListener(news, soon)
  const mine = source
  mine.onerror = () => {
    if (mine !== source) return
    gone()
    // The browser tries again by itself unless the server has said no.
    if (mine.readyState === EventSource.CLOSED) { clearTimeout(retry); retry = setTimeout(connect, 2000) }
  }
}

function gone() {
  if (lost) return
  lost = Date.now()
  root.classList.add('stale')
  banner('lost', 'Connection to txlb lost at ' + time(Date.now(), true) + '. The values shown are old. Reconnecting…')
}

function arrived(f) {
  heard = Date.now()
  enough = 2 * patience
  clock = f.time - heard
  const restarted = boot !== f.boot
  if (root.dataset.version !== f.version) { location.reload(); return } // an upgrade is no restart
  if (lost || restarted) {
    root.classList.remove('stale')
    banner('back', restarted ? 'txlb was restarted. Live again.' : 'Live again.')
    setTimeout(() => { if (!lost) banner('', '') }, 5000)
    lost = 0
  }
  if (restarted) { boot = f.boot; rows.clear() }
  newest = f
  for (const id in f.hosts) { rows.set(id, f.hosts[id]); waiting.add(id) }
  if (rows.size > 20000) rows.clear()
  // Whatever was missed, be it events or a refresh that failed, is seen by this.
  const at = live() || $('#plain[data-revision]')
  if (at && (restarted || at.dataset.revision !== f.revision)) soon()
  if ($('#plain[data-again=sessions], #plain[data-again=clients], #plain[data-again=explain], #plain[data-again=fleet]') && !dialog.open && Date.now() - lastFetch > 2500) soon()
  feed(f)
  draw()
}

setInterval(() => {
  if (document.hidden) return
  if (Date.now() - heard > patience) {
    gone()
    if (Date.now() - heard > enough) {
      enough = Math.min(2 * enough, 60000)
      connect()
    } else if (source?.readyState === EventSource.CLOSED) connect()
  }
}, 1000)
document.addEventListener('visibilitychange', () => {
  connect()
  if (document.hidden) return
  refresh()
  for (const c of charts.values()) load(c) // with what it has missed
})

// ---- go ----

root.classList.add('js')
for (const m of $$('.message')) closable(m)
clocks(document)
kept.apply(document)
if (live()) watch(live())
chartsIn(document)
if (location.hash) {
  const to = document.getElementById(location.hash.slice(1))
  for (let d = to && to.closest('details'); d; d = d.parentElement.closest('details')) d.open = true
  if (to) to.scrollIntoView()
}
connect()
})()
