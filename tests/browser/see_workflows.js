// What a user sees, in a real browser against a running ComfyUI: both kinds of canvas, every shipped workflow, from the
// templates too, one run of the demo to a playing video, one of a source and its restyled video, a live stream, Cancel, an error, and another
// language. Started by
// see_workflows.py; README.md says what it needs.
//
//   node see_workflows.js URL PICTURES classic|vue [PART ...]
//
// PART is one of templates, workflows, plan, awake, demo, restyle, night, live, cancel, error, messages, language, languages; without one, all of them in turn.
// Prints a line for each check and exits with 1 where one fails. PICTURES is a folder for screenshots.
'use strict'

const fs = require('fs')
const path = require('path')
const { chromium } = require('playwright-core')

const [url, pictures, kind, ...parts] = process.argv.slice(2)
const WORKFLOWS = path.join(__dirname, '..', '..', 'workflows')
const FILES = fs.readdirSync(WORKFLOWS).filter((file) => file.endsWith('.json'))
const LANGUAGES = fs.readdirSync(path.join(WORKFLOWS, '..', 'locales')).filter((name) => name !== 'en')
const NAMES = FILES.map((file) => path.basename(file, '.json'))
const DEMO = 'HiStream 01 Try it now, no download'
const RESTYLE = 'HiStream 07 Restyle a video'
const LIVE = 'HiStream 08 Live camera'
const NIGHT = 'HiStream 13 Several GPUs'
const EXTEND = 'HiStream 06 Extend, retry, branch, resume'
const LEAST_SCALE = 0.75 // at which a workflow opens; the classic canvas writes no words below 0.57
const ANSWERS = 1000 // ms; a quiet computer takes a few, and the line says how many
const BROWSER = process.env.CHROMIUM || '/usr/bin/chromium'
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--autoplay-policy=no-user-gesture-required']
const VIEW = { width: 1600, height: 1000 }
const GRAPH = { x: 60, y: 40, width: 1540, height: 900 } // where a workflow is
const DIALOG = { x: 840, y: 40, width: 760, height: 615 } // where an error is told; below it are paths
const SLOW = 600000 // ms, for what waits for sampling on a shared CPU
const OURS = /histream/i
const BLOCKED = /Content Security Policy|api\.comfy\.org/ // what the host asks other servers about any node
let failed = 0

function check(name, fine, seen = '') {
  failed += fine ? 0 : 1
  console.log(`${fine ? 'ok  ' : 'FAIL'} ${kind}: ${name}${seen === '' ? '' : ` (${seen})`}`)
}

async function set(setting, value) {
  const body = JSON.stringify(value)
  await fetch(`${url}/settings/${setting}`, { method: 'POST', body, headers: { 'Content-Type': 'application/json' } })
}

// In the page: pictures tell late that they are loaded, as on a slow computer.
function slowPictures() {
  const { get, set } = Object.getOwnPropertyDescriptor(HTMLElement.prototype, 'onload')
  Object.defineProperty(HTMLImageElement.prototype, 'onload', {
    get,
    set(told) {
      set.call(this, (event) => setTimeout(() => told(event), 1500))
    }
  })
}

// In the page: what the classic canvas shows of previews in a node that has a player.
function besideThePlayer() {
  const players = window.app.graph._nodes.filter((n) => n.widgets?.some((widget) => widget.name === 'video-preview'))
  const widgets = players.flatMap((node) => node.widgets.map((widget) => widget.name))
  return widgets.filter((name) => /canvas-image-preview|animation_preview/.test(name))
}

async function open(browser) {
  const page = await browser.newPage({ viewport: VIEW })
  if (kind === 'classic') await page.addInitScript(slowPictures)
  const errors = []
  page.on('console', (message) => {
    if (message.type() === 'error') errors.push(`${message.text()} ${message.location().url}`)
  })
  page.on('pageerror', (error) => errors.push(`${error.message}\n${error.stack}`))
  await page.goto(url, { timeout: SLOW })
  await page.waitForFunction(() => window.app?.graph && window.app.extensionManager, null, { timeout: SLOW })
  await page.waitForFunction(() => window.LiteGraph.registered_node_types.HiStreamLoadModel, null, { timeout: SLOW })
  await page.evaluate(watch)
  return { page, errors: () => errors.splice(0).filter((text) => OURS.test(text) && !BLOCKED.test(text)) }
}

// In the page: note what the server tells while something runs, from now on.
function watch() {
  const before = window.seen
  window.seen = { previews: new Set(), texts: [], errors: [], interrupted: 0, done: 0, progress: 0 }
  if (before) return
  const { api } = window.app
  api.addEventListener('b_preview_with_metadata', ({ detail }) => {
    detail.blob.arrayBuffer().then(async (bytes) => {
      const digest = await crypto.subtle.digest('SHA-1', bytes)
      window.seen.previews.add(String(new Uint8Array(digest)))
    })
  })
  api.addEventListener('progress_text', ({ detail }) => window.seen.texts.push(detail.text))
  api.addEventListener('progress', () => window.seen.progress++)
  api.addEventListener('execution_error', ({ detail }) => window.seen.errors.push(detail.exception_message))
  api.addEventListener('execution_interrupted', () => window.seen.interrupted++)
  api.addEventListener('execution_success', () => window.seen.done++)
}

// Open a workflow as a click on its template does, at the scale that the host fits it to.
async function load(page, name, change = (graph) => graph) {
  const graph = change(JSON.parse(fs.readFileSync(path.join(WORKFLOWS, `${name}.json`))))
  await page.evaluate(
    ([graph, name]) => window.app.loadGraphData(graph, true, true, name, { openSource: 'template' }),
    [graph, name]
  )
  await page.waitForFunction((count) => window.app.graph._nodes.length === count, graph.nodes.length)
  await page.waitForTimeout(1500)
  await page.keyboard.press('Escape')
}

// Every node in view, whatever the canvas draws with.
async function fit(page) {
  await page.mouse.move(VIEW.width - 1, VIEW.height / 2)
  await page.evaluate(([width, height]) => {
    const nodes = window.app.graph._nodes
    const left = Math.min(...nodes.map((node) => node.pos[0]))
    const top = Math.min(...nodes.map((node) => node.pos[1] - 40))
    const right = Math.max(...nodes.map((node) => node.pos[0] + node.size[0]))
    const bottom = Math.max(...nodes.map((node) => node.pos[1] + node.size[1]))
    const { canvas } = window.app
    const scale = Math.min((width - 140) / (right - left), (height - 170) / (bottom - top), 1)
    canvas.ds.scale = scale
    canvas.ds.offset = [90 / scale - left, 90 / scale - top]
    canvas.setDirty(true, true)
  }, [VIEW.width, VIEW.height])
  await page.waitForTimeout(800)
}

async function shoot(page, name, clip) {
  await page.screenshot({ path: path.join(pictures, `${name}_${kind}.jpg`), type: 'jpeg', quality: 72, clip })
}

function widget(graph, type, index, value) {
  for (const node of graph.nodes) if (node.type === type) node.widgets_values[index] = value
  return graph
}

// A seed of its own each time: the server would not make again what it has made.
const again = (graph) => widget(graph, 'HiStreamAnchorWindowSampler', 0, Date.now())
const short = (length) => (graph) => again(widget(graph, 'EmptyHunyuanLatentVideo', 2, length))

// In the page: nodes that touch or lie on others, by what is drawn, buttons below them too; and how many are page elements.
function lyingOnOthers() {
  const gap = 4 // pixels between two at least
  const boxes = window.app.graph._nodes.map((node) => {
    const drawn = document.querySelector(`[data-node-id="${node.id}"]`)
    if (drawn) {
      const { left, top, right } = drawn.getBoundingClientRect()
      const parts = [drawn, ...drawn.querySelectorAll('button')]
      const bottom = Math.max(...parts.map((part) => part.getBoundingClientRect().bottom))
      return { name: node.title, left, top, right, bottom, drawn }
    }
    const [left, top, width, height] = node.getBounding()
    return { name: node.title, left, top, right: left + width, bottom: top + height }
  })
  const on = (a, b) =>
    a.left < b.right + gap && b.left < a.right + gap && a.top < b.bottom + gap && b.top < a.bottom + gap
  const pairs = boxes.flatMap((a, i) => boxes.slice(i + 1).filter((b) => on(a, b)).map((b) => `${a.name} on ${b.name}`))
  return { pairs, inPage: boxes.filter((box) => box.drawn).length, nodes: boxes.length }
}

// In the page: how many notes are drawn, and how much of each must be scrolled to.
function notes() {
  const texts = [...document.querySelectorAll('.comfy-markdown .tiptap, .comfy-markdown-content')]
  return texts.filter((text) => text.clientHeight).map((text) => text.scrollHeight - text.clientHeight)
}

async function everyWorkflow(page, errors) {
  for (const name of NAMES) {
    errors()
    await load(page, name)
    const missing = await page.evaluate(() =>
      window.app.graph._nodes.filter((node) => !window.LiteGraph.registered_node_types[node.type]).map((n) => n.type)
    )
    check(`${name} opens with no missing node`, missing.length === 0, missing.join())
    const told = errors()
    check(`${name} brings no console error of ours`, told.length === 0, told.join(' | '))
    const { pairs, inPage, nodes } = await page.evaluate(lyingOnOthers)
    const wanted = kind === 'vue' ? nodes : 0
    check(`${name} is drawn by this kind of canvas`, inPage === wanted, `${inPage} of ${nodes} in the page`)
    check(`${name} has no node on another`, pairs.length === 0, pairs.join(', '))
    const hidden = await page.evaluate(notes)
    check(`${name} shows its whole note`, hidden.length === 1 && hidden[0] <= 1, `${hidden.join()} to scroll`)
    const scale = await page.evaluate(() => window.app.canvas.ds.scale)
    check(`${name} opens large enough to read`, scale >= LEAST_SCALE, `${(100 * scale).toFixed(1)}%`)
    await shoot(page, name)
  }
}

// In the page: what Preview as Text shows, and where Memory Plan's plan is in its node.
const previewed = () => {
  const node = window.app.graph._nodes.find((one) => one.type === 'PreviewAny')
  return node.widgets.map((one) => String(one.value)).join('\n')
}

async function awake(page) {
  const types = ['HiStreamExtendRun', 'HiStreamBranchRun', 'HiStreamResumeRun']
  const ended = (count) =>
    page.waitForFunction((n) => window.seen.done === n || window.seen.errors.length, count, { timeout: SLOW })
  await load(page, EXTEND, again)
  await run(page)
  await ended(1)
  await page.evaluate((types) => {
    for (const node of window.app.graph._nodes) if (types.includes(node.type)) node.mode = 0
  }, types)
  await run(page)
  await ended(2)
  const wrong = await page.evaluate(() => window.seen.errors.join())
  check('extend, branch and resume run to their end', wrong === '', wrong)
  const players = () => [...document.querySelectorAll('video')].filter((video) => video.readyState >= 1).length >= 4
  await page.waitForFunction(players, null, { timeout: 60000 }).catch(() => {})
  await page.waitForTimeout(3000)
  const { pairs } = await page.evaluate(lyingOnOthers)
  check('awake, no node grows over another', pairs.length === 0, pairs.join(', '))
  const listed = await page.evaluate(previewed)
  const runs = new Set(listed.match(/take_\d+ +\w+ \d+\/\d+ chunks/g))
  const finished = [...runs].filter((line) => / finished /.test(line))
  const seen = [...runs].join(', ')
  check('the list has the runs of this very run, finished', runs.size >= 3 && finished.length === runs.size, seen)
  const titles = await page.evaluate(() => window.app.graph._nodes.map((node) => node.title))
  check('no title says that a node sleeps', !titles.some((title) => /asleep|sleeps/i.test(title)), titles.join())
  await shoot(page, 'extended_and_branched')
}

// Memory Plan in a graph of the demo, as an artist adds it.
async function plan(page) {
  await load(page, DEMO, (graph) => {
    widget(graph, 'EmptyHunyuanLatentVideo', 2, kind === 'vue' ? 41 : 57) // or the server shows no line: it is made
    graph.nodes = graph.nodes.filter((node) => ['HiStreamDemoModel', 'EmptyHunyuanLatentVideo'].includes(node.type))
    graph.links = []
    for (const node of graph.nodes) for (const output of node.outputs) output.links = []
    return graph
  })
  await page.evaluate(() => {
    const { graph } = window.app
    const [demo, latent] = ['HiStreamDemoModel', 'EmptyHunyuanLatentVideo'].map((type) =>
      graph._nodes.find((node) => node.type === type)
    )
    const node = window.LiteGraph.createNode('HiStreamMemoryPlan')
    node.pos = [latent.pos[0] + 420, 0]
    graph.add(node)
    demo.connect(0, node, node.inputs.findIndex((input) => input.name === 'model'))
    latent.connect(0, node, node.inputs.findIndex((input) => input.name === 'latent'))
  })
  await page.waitForTimeout(1000)
  await run(page)
  await page.waitForFunction(() => window.seen.done === 1 || window.seen.errors.length, null, { timeout: SLOW })
  await page.waitForTimeout(1500)
  const seen = await page.evaluate(() => {
    const words = [...document.querySelectorAll('textarea')].find((area) => /as it is set/.test(area.value))
    const box = words?.getBoundingClientRect()
    return { text: words?.value ?? '', height: box ? box.height / window.app.canvas.ds.scale : 0, top: words?.scrollTop }
  })
  const [first, ...table] = seen.text.split('\n')
  check('the verdict is the first line of the plan', /^(Fits|Does not fit)/.test(first), first)
  check('the plan stands in the node', seen.height > 150 && seen.top === 0 && table.length > 15, `${Math.round(seen.height)} high`)
  const told = await page.evaluate(() => window.seen.texts[window.seen.texts.length - 1])
  check('the line under the node is the verdict', told === first, told)
  await fit(page)
  await shoot(page, 'memory_plan', GRAPH)
}

async function templates(page) {
  const card = (name) => page.locator(`[data-testid="template-workflow-${name}"]`)
  await page.getByText('Templates', { exact: true }).first().click()
  await card(DEMO).waitFor({ timeout: SLOW })
  await page.waitForTimeout(2000)
  const bare = []
  for (const name of NAMES) {
    const seen = await card(name).locator('img').evaluateAll((all) => all.some((picture) => picture.naturalWidth))
    if (!seen) bare.push(name)
  }
  check('every workflow is among the templates with its picture', bare.length === 0, bare.join())
  await shoot(page, 'templates')
  await card(DEMO).locator('img').first().click()
  const demo = () => window.app.graph._nodes.some((node) => node.type === 'HiStreamDemoModel')
  const opened = await page.waitForFunction(demo, null, { timeout: 60000 }).then(() => true, () => false)
  check('a click opens it', opened)
}

const run = (page) => page.locator('[data-testid="queue-button"]').first().click()

async function demo(page) {
  await load(page, DEMO, again)
  const frames = await page.evaluate(() => {
    const empty = window.app.graph._nodes.find((node) => node.type === 'EmptyHunyuanLatentVideo')
    return empty.widgets.find((w) => w.name === 'length').value
  })
  await run(page)
  await page.waitForFunction(() => window.seen.previews.size >= 3, null, { timeout: SLOW })
  await page.waitForTimeout(2000)
  const shown = await page.evaluate(() => {
    const sampler = window.app.graph._nodes.find((node) => node.type === 'HiStreamAnchorWindowSampler')
    const inCanvas = (window.app.nodePreviewImages[sampler.id] || []).length + (sampler.imgs || []).length
    const inPage = [...document.querySelectorAll(`[data-node-id="${sampler.id}"] img`)].length
    return { inCanvas, inPage, done: window.seen.done }
  })
  check('three previews are seen before the end', shown.done === 0)
  check('the sampler shows one', (kind === 'vue' ? shown.inPage : shown.inCanvas) > 0, JSON.stringify(shown))
  await shoot(page, 'while_it_runs', GRAPH)
  await page.waitForFunction(() => window.seen.done === 1 || window.seen.errors.length, null, { timeout: SLOW })
  const seen = await page.evaluate(() => ({
    ...window.seen,
    previews: window.seen.previews.size
  }))
  check('it ends without an error', seen.done === 1, seen.errors.join())
  const line = new RegExp(`chunk \\d of \\d, step \\d of \\d, \\d+ of ${frames} frames`)
  const said = seen.texts.filter((text) => line.test(text))
  check('the line under the node says chunk, step and frames', said.length >= 12, said[said.length - 1])
  check('and the time that is left', said.some((text) => /about .* left/.test(text)))
  check('progress and previews came', seen.progress > 12 && seen.previews >= 3, `${seen.previews} pictures`)
  await page.waitForFunction(() => [...document.querySelectorAll('video')].some((v) => v.readyState >= 2), null, {
    timeout: SLOW
  })
  const played = await page.evaluate(async () => {
    const video = [...document.querySelectorAll('video')].find((v) => v.readyState >= 2)
    video.muted = true
    await video.play()
    const before = video.currentTime
    await new Promise((done) => setTimeout(done, 1500))
    return { moved: video.currentTime !== before, seconds: video.duration, width: video.videoWidth }
  })
  check('the video plays', played.moved && Math.abs(played.seconds - frames / 16) < 0.2, JSON.stringify(played))
  if (kind === 'classic') {
    await page.waitForTimeout(1000)
    const beside = await page.evaluate(besideThePlayer)
    check('no preview is left beside the player', beside.length === 0, beside.join())
  }
  await fit(page)
  await shoot(page, 'the_video_plays', GRAPH)
}

async function restyle(page) {
  // A source of its own for each canvas: the server shows no player of what it has made before.
  await load(page, RESTYLE, (graph) => widget(graph, 'HiStreamDemoVideo', 1, kind === 'vue' ? 2.5 : 3))
  await run(page)
  await page.waitForFunction(() => window.seen.done === 1 || window.seen.errors.length, null, { timeout: SLOW })
  const told = await page.evaluate(() => window.seen.errors.join())
  check('a video is restyled without an error', told === '', told)
  const two = () => [...document.querySelectorAll('video')].filter((video) => video.readyState >= 1).length >= 2
  await page.waitForFunction(two, null, { timeout: SLOW })
  const seen = await page.evaluate(async () => {
    const videos = [...document.querySelectorAll('video')]
    for (const video of videos) {
      video.muted = true
      await video.play()
    }
    await new Promise((done) => setTimeout(done, 1500))
    for (const video of videos) video.pause()
    const moved = videos.every((video) => video.currentTime > 0)
    for (const video of videos) video.currentTime = 1
    return { moved, seconds: videos.map((video) => video.duration) }
  })
  check('source and result play, and are as long', seen.moved && seen.seconds[0] === seen.seconds[1], seen.seconds.join())
  await page.waitForTimeout(1000)
  const { pairs } = await page.evaluate(lyingOnOthers)
  check('the players let no node grow over another', pairs.length === 0, pairs.join(', '))
  await fit(page)
  await shoot(page, 'a_video_is_restyled', GRAPH)
}

// The list of shots alone, into a folder of its own for each canvas.
async function night(page) {
  await load(page, NIGHT, (graph) => {
    for (const node of graph.nodes) if (/Sampler|Release/.test(node.type)) node.mode = 2
    return widget(graph, 'HiStreamFarmSubmit', 8, `histream/night_${kind}`)
  })
  await run(page)
  const under = () => window.seen.texts.some((text) => /2 shots: .*1 running.*\n.*running +[1-9] of 3 chunks/s.test(text))
  await page.waitForFunction(under, null, { timeout: SLOW }).catch(() => null)
  await page.waitForTimeout(500)
  await shoot(page, 'a_night_while_it_runs', GRAPH)
  await page.waitForFunction(() => window.seen.done === 1 || window.seen.errors.length, null, { timeout: SLOW })
  const seen = await page.evaluate(() => window.seen)
  check('a night of shots ends without an error', seen.done === 1, seen.errors.join())
  const said = seen.texts.filter((text) => /running +[1-9] of 3 chunks/.test(text))
  check('the line under the node says which shot is running', said.length > 0, said[0])
  check('and how long all of them take', said.some((text) => /about .* left/.test(text)))
  await page.waitForFunction(() => [...document.querySelectorAll('video')].some((v) => v.readyState >= 1), null, {
    timeout: SLOW
  })
  const table = await page.evaluate(() => {
    const node = window.app.graph._nodes.find((one) => one.type === 'HiStreamFarmSubmit')
    return node.widgets.map((one) => String(one.value)).find((value) => value.includes('2 shots: 2 finished'))
  })
  check('the list stands in the node', /shot-0001 +finished +3 of 3 chunks/.test(table), table)
  const { pairs } = await page.evaluate(lyingOnOthers)
  check('the list and the player let no node grow over another', pairs.length === 0, pairs.join(', '))
  await fit(page)
  await shoot(page, 'a_night_of_shots', GRAPH)
}

// In the page: how long the host's socket takes to greet a new client, in ms, the slowest of some.
async function greetings(count) {
  const waits = []
  for (let i = 0; i < count; i++) {
    const began = performance.now()
    await new Promise((done, fail) => {
      const socket = new WebSocket(`${location.origin.replace('http', 'ws')}/ws?clientId=greeted${i}`)
      socket.onmessage = () => {
        waits.push(performance.now() - began)
        socket.close()
        done()
      }
      socket.onerror = fail
    })
    await new Promise((done) => setTimeout(done, 150))
  }
  return waits.sort((a, b) => a - b).map(Math.round)
}

async function live(page) {
  const address = /http:\/\/127\.0\.0\.1:\d+\/#[\w-]{22}/
  const told = () => page.waitForFunction(() => window.seen.texts.some((text) => / behind/.test(text)), null, { timeout: SLOW })
  await load(page, LIVE)
  await run(page)
  await told()
  const line = (await page.evaluate(() => window.seen.texts)).find((text) => / behind/.test(text))
  check('the node says where the page is, and how the stream goes', address.test(line), line.replace('\n', ' '))
  const link = page.locator('a[href^="http://127.0.0.1:"][href*="#"]').first()
  const [opened] = await Promise.all([page.context().waitForEvent('page', { timeout: 30000 }), link.click()])
  const shown = await opened.locator('#prompt').waitFor({ timeout: 30000 }).then(() => true, () => false)
  check('a click on it opens the page', shown, opened.url().replace(/#.*/, '#...'))
  await opened.waitForTimeout(1500)
  await opened.screenshot({ path: path.join(pictures, `live_page_${kind}.jpg`), type: 'jpeg', quality: 72 })
  await opened.close()
  const waits = await page.evaluate(greetings, 20)
  check('the host answers while it runs', waits[19] < ANSWERS, `median ${waits[10]} ms, slowest ${waits[19]} ms`)
  await shoot(page, 'a_live_stream', GRAPH)
  await page.waitForFunction(() => window.seen.done === 1 || window.seen.errors.length, null, { timeout: SLOW })
  const wrong = await page.evaluate(() => window.seen.errors.join())
  check('a live stream runs to its end without an error', wrong === '', wrong)
  await page.waitForFunction(() => [...document.querySelectorAll('video')].length >= 1, null, { timeout: SLOW })
  const { pairs } = await page.evaluate(lyingOnOthers)
  check('the players let no node grow over another', pairs.length === 0, pairs.join(', '))
  await fit(page)
  await shoot(page, 'a_live_stream_is_over', GRAPH)
  await page.evaluate(watch)
  await load(page, LIVE, (graph) => widget(graph, 'HiStreamLive', 7, 0))
  await run(page)
  await told()
  await page.locator('button[aria-label="Cancel current run"]').first().click()
  await page.waitForFunction(() => window.seen.interrupted, null, { timeout: SLOW })
  const [interrupted, done] = await page.evaluate(() => [window.seen.interrupted, window.seen.done])
  check('Cancel stops it', interrupted === 1 && done === 0)
  await nextRun(page)
}

async function cancel(page) {
  await load(page, DEMO, short(241))
  await run(page)
  await page.waitForFunction(() => window.seen.progress > 3, null, { timeout: SLOW })
  await page.locator('button[aria-label="Cancel current run"]').first().click()
  await page.waitForFunction(() => window.seen.interrupted, null, { timeout: SLOW })
  const seen = await page.evaluate(() => [window.seen.interrupted, window.seen.done])
  check('Cancel stops it', seen[0] === 1 && seen[1] === 0)
  await shoot(page, 'cancelled', GRAPH)
  await nextRun(page)
}

async function nextRun(page) {
  await page.evaluate(watch)
  await load(page, DEMO, short(1))
  await run(page)
  await page.waitForFunction(() => window.seen.done || window.seen.errors.length, null, { timeout: SLOW })
  const [done, told] = await page.evaluate(() => [window.seen.done, window.seen.errors.join()])
  check('the next correct run works', done === 1, told)
  // A player that comes when its node is gone would stand in the next picture.
  await page.waitForFunction(() => [...document.querySelectorAll('video')].some((video) => video.readyState >= 2), null, {
    timeout: SLOW
  })
}

async function error(page) {
  await load(page, DEMO, (graph) => widget(short(9)(graph), 'EmptyHunyuanLatentVideo', 0, 272))
  await run(page)
  await page.waitForFunction(() => window.seen.errors.length, null, { timeout: SLOW })
  await page.waitForTimeout(1000)
  const details = page.getByText('View details')
  if (await details.count()) await details.first().click()
  const sentence = 'width 272 is not a multiple of 32: use 256 or 288'
  const shown = page.getByText(sentence)
  await shown.first().waitFor({ timeout: 60000 }).catch(() => {})
  check('the error names the number that works', (await shown.count()) > 0)
  await shoot(page, 'an_error', DIALOG)
  await nextRun(page)
}

// A warning about a prompt goes away with it.
async function messages(page) {
  const shown = () => {
    const sampler = window.app.graph._nodes.find((node) => node.type === 'HiStreamAnchorWindowSampler')
    return String(sampler.widgets.find((one) => one.name === '$$node-text-preview')?.value ?? '')
  }
  const ended = (count) =>
    page.waitForFunction((n) => window.seen.done === n || window.seen.errors.length, count, { timeout: SLOW })
  await load(page, DEMO, (graph) =>
    widget(short(1)(graph), 'CLIPTextEncode', 0, 'a yellow square moves left on a purple background')
  )
  await run(page)
  await ended(1)
  const before = await page.evaluate(shown)
  check('what the demo model was not trained on is said', /trained/.test(before), before)
  await shoot(page, 'a_warning', GRAPH)
  await page.evaluate(() => {
    const prompt = window.app.graph._nodes.find((node) => node.type === 'CLIPTextEncode')
    prompt.widgets[0].value = 'a yellow square moves left on a green background'
  })
  await run(page)
  await ended(2)
  const after = await page.evaluate(shown)
  check('and no more when the prompt is another', after !== '' && !/trained/.test(after), after)
  await shoot(page, 'the_warning_is_gone', GRAPH)
}

async function language(_page, _errors, browser) {
  await set('Comfy.Locale', 'fr')
  await set('Comfy.RightSidePanel.IsOpen', false)
  const { page, errors } = await open(browser)
  await load(page, DEMO)
  const name = 'HiStreamAnchorWindowSampler'
  const words = JSON.parse(fs.readFileSync(path.join(WORKFLOWS, '..', 'locales', 'fr', 'nodeDefs.json')))[name]
  const shown = await page.evaluate((type) => {
    const node = window.app.graph._nodes.find((one) => one.type === type)
    return [node.title, node.inputs.find((input) => input.name === 'positive').localized_name]
  }, name)
  const wanted = [words.display_name, words.inputs.positive.name]
  check('names are in the language of the pages', shown.join() === wanted.join(), shown.join())
  await load(page, EXTEND)
  const [note, menu] = await page.evaluate(() => {
    const node = window.app.graph._nodes.find((one) => one.type === 'MarkdownNote')
    const types = ['HiStreamExtendRun', 'HiStreamDemoModel'].map((type) => window.LiteGraph.registered_node_types[type])
    return [`${node.title}\n${node.widgets[0].value}`, types.map((type) => type.title)]
  })
  const french = note.includes('Les nœuds violets dorment') && menu.every((title) => note.includes(`*${title}*`))
  check('the note is too, and calls nodes as the menu does', french && !note.includes('{'), note.split('\n')[0])
  await shoot(page, 'a_note_in_french')
  const told = errors()
  check('another language brings no console error of ours', told.length === 0, told.join(' | '))
  await shoot(page, 'in_french', GRAPH)
  await page.close()
  await set('Comfy.Locale', 'en')
}

// In every language: a node is as wide as its words need, and a note as long.
async function languages(_page, _errors, browser) {
  for (const name of LANGUAGES) {
    await set('Comfy.Locale', name)
    const { page } = await open(browser)
    const wrong = []
    for (const workflow of NAMES) {
      await load(page, workflow)
      const { pairs } = await page.evaluate(lyingOnOthers)
      const hidden = (await page.evaluate(notes)).filter((pixels) => pixels > 1)
      wrong.push(...[...pairs, ...hidden.map((pixels) => `${pixels} to scroll`)].map((what) => `${workflow}: ${what}`))
    }
    check(`in ${name} no node is on another, and all notes are whole`, wrong.length === 0, wrong.join('; '))
    await page.close()
  }
  await set('Comfy.Locale', 'en')
}

async function main() {
  await set('Comfy.TutorialCompleted', true)
  await set('Comfy.VueNodes.Enabled', kind === 'vue')
  await set('Comfy.RightSidePanel.IsOpen', false)
  await set('Comfy.Locale', 'en')
  const browser = await chromium.launch({ executablePath: BROWSER, args: FLAGS })
  try {
    const { page, errors } = await open(browser)
    const all = { templates, workflows: everyWorkflow, plan, awake, demo, restyle, night, live, cancel, error, messages, language, languages }
    for (const part of parts.length ? parts : Object.keys(all)) {
      errors()
      await page.evaluate(watch)
      await all[part](page, errors, browser)
      const told = errors()
      check(`${part} brings no console error of ours`, told.length === 0, told.join(' | '))
    }
  } finally {
    await browser.close()
  }
  process.exit(failed ? 1 : 0)
}

main().catch((problem) => {
  console.error(problem)
  process.exit(1)
})
