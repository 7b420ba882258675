// The page of a live stream in a real browser: its own camera as the source (a fake one), pictures, numbers, all that a
// performer may ask for, by mouse and by keys, and the end. Started by see_live.py; README.md says what it needs.
//
//   node see_live.js ADDRESS PICTURES CAMERA
//
// Prints a line for each check and exits with 1 where one fails. PICTURES is a folder for screenshots,
// CAMERA a file (.mjpeg) of what the camera shows.
'use strict'

const { chromium } = require('playwright-core')

const [address, pictures, camera] = process.argv.slice(2)
const BROWSER = process.env.CHROMIUM || '/usr/bin/chromium'
const FAKE = ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream', `--use-file-for-fake-video-capture=${camera}`]
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', ...FAKE]
const WIDE = { width: 1280, height: 800 }
const PHONE = { width: 390, height: 844 }
const FIRST = 5 // s from the source's first picture to the first restyled one
const CHUNKS = 3 // from a prompt that was sent until it is seen
const CLEAR = 12 // of 255, by which the mean colour of a picture moves at least
const SHARE = 0.25 // of the way, from which on a prompt is seen
const SLOW = 60000 // ms, on a shared CPU
let failed = 0

function check(name, fine, seen = '') {
  failed += fine ? 0 : 1
  console.log(`${fine ? 'ok  ' : 'FAIL'} ${name}${seen === '' ? '' : ` (${seen})`}`)
}

// In the page: keep the reports that come, and count the pictures by their first byte.
function watch() {
  window.seen = { reports: [], pictures: [0, 0], awake: 0 }
  const lock = navigator.wakeLock.request.bind(navigator.wakeLock)
  navigator.wakeLock.request = (kind) => ++window.seen.awake && lock(kind)
  const Socket = window.WebSocket
  window.WebSocket = class extends Socket {
    constructor(...given) {
      super(...given)
      window.seen.socket = this
      this.addEventListener('message', ({ data }) => {
        if (typeof data !== 'string') window.seen.pictures[new Uint8Array(data)[0]]++
        else if (JSON.parse(data).report) window.seen.reports.push(JSON.parse(data).report)
      })
    }
  }
}

const report = (page) => page.evaluate(() => window.seen.reports.at(-1))

// Wait until the newest report fits, or until it never will; returns whether it does.
async function reported(page, fits) {
  for (const until = Date.now() + SLOW; Date.now() < until; await page.waitForTimeout(50)) {
    const found = await report(page)
    if (found && fits(found)) return true
  }
  return false
}

// Whether the page says such a thing on its picture, before long.
async function says(page, words) {
  for (const until = Date.now() + SLOW; Date.now() < until; await page.waitForTimeout(50)) {
    if (words.test(await page.textContent('#state'))) return true
  }
  return false
}

// The mean colour of the restyled picture, 0 to 255.
function colour(page) {
  return page.$eval('#shown', (canvas) => {
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
    const sums = [0, 0, 0]
    data.forEach((value, index) => index % 4 < 3 && (sums[index % 4] += value))
    return sums.map((sum) => Math.round((4 * sum) / data.length))
  })
}

const distance = (one, other) => Math.max(...one.map((value, index) => Math.abs(value - other[index])))

async function begins(page) {
  await page.waitForFunction(() => document.querySelectorAll('#cameras option').length > 1, null, { timeout: SLOW })
  check('it asks for a camera', /Choose a camera/.test(await page.textContent('#state')))
  await page.selectOption('#cameras', { index: 1 })
  await page.waitForFunction(() => window.seen.reports.at(-1).frames > 0, null, { timeout: SLOW })
  await page.waitForFunction(() => window.seen.pictures[0] > 0, null, { timeout: SLOW })
  const { ttff } = await report(page)
  check(`the first restyled picture comes within ${FIRST} s of the source's first`, ttff <= FIRST, `${ttff.toFixed(2)} s`)
  await page.waitForTimeout(300)
  const seen = await colour(page)
  check('the picture is not black', Math.max(...seen) > 20, seen)
  check('the screen stays awake', await page.evaluate(() => window.seen.awake > 0))
  check('the source is shown beside it', await page.$eval('#own', (video) => !video.hidden && video.videoWidth > 0))
}

async function numbersMove(page) {
  const before = await report(page)
  const texts = await page.textContent('#numbers')
  const moved = await reported(page, (r) => r.frames > before.frames + 16 && r.seconds > before.seconds)
  const now = await report(page)
  check('numbers move', moved && texts !== (await page.textContent('#numbers')), `${before.frames} to ${now.frames} frames`)
  check('the delay is shown', /^\d+\.\d\d s$/.test(await page.textContent('#delay b')), await page.textContent('#delay'))
}

// Words that are typed stay until they are sent or Esc is pressed, whatever reports come meanwhile.
async function keepsWords(page, words) {
  await page.fill('#prompt', words)
  await page.hover('#say button')
  await page.mouse.down()
  await nextReport(page)
  check('words that are typed stay', (await page.inputValue('#prompt')) === words)
  await page.mouse.up()
  check('Send sends them', await reported(page, (r) => r.prompt === words), words)
  await page.fill('#prompt', 'half of')
  await page.keyboard.press('Escape')
  await nextReport(page)
  check('Esc gives them up', (await page.inputValue('#prompt')) === words)
}

async function nextReport(page) {
  const count = await page.evaluate(() => window.seen.reports.length)
  await page.waitForFunction((before) => window.seen.reports.length > before, count, { timeout: SLOW })
}

// How far the mean colour moves from now on while so many more chunks are made.
async function movesIn(page, chunks) {
  const [{ chunks: before }, look] = [await report(page), await colour(page)]
  let step = 0
  while ((await report(page)).chunks <= before + chunks) {
    step = Math.max(step, distance(look, await colour(page)))
    await page.waitForTimeout(50)
  }
  return step
}

// The chunk that is on the screen: the first has 9 frames, others 12.
const shown = ({ frames }) => Math.floor((frames - 10) / 12) + 1

// A prompt that `send` sends: it begins, and is on the screen from a chunk on that is a few behind its first at most. That is
// where the mean colour has gone a share of its way to where it is in the end, and goes back no more.
async function prompted(page, words, name, send) {
  const still = await movesIn(page, 1)
  const look = await colour(page)
  await send()
  const lines = (r) => r.log.filter((line) => line.includes(`"${words}" begins at chunk`))
  const begins = await reported(page, (r) => r.prompt === words && lines(r).length > 0)
  const line = lines(await report(page)).at(-1) ?? ''
  check(`${name} begins`, begins, line)
  const first = Number(/begins at chunk (\d+)/.exec(line)?.[1])
  const seen = []
  do {
    await page.waitForTimeout(50)
    seen.push([shown(await report(page)), distance(look, await colour(page))])
  } while (seen.at(-1)[0] <= first + 2 * CHUNKS)
  const way = seen.at(-1)[1]
  const last = seen.findLastIndex(([, step]) => step < SHARE * way)
  const later = seen[last + 1][0] - first
  const what = `the mean colour moves by ${way}, before by ${still}, ${later} chunks after its first`
  check(`${name} is seen within ${CHUNKS} chunks`, way > Math.max(2 * still, CLEAR) && later >= 0 && later <= CHUNKS, what)
}

async function controls(page) {
  await page.focus('#strength')
  await page.keyboard.press('ArrowLeft')
  const strength = Number(await page.inputValue('#strength'))
  check('strength acts', await reported(page, (r) => Math.abs(r.strength - strength) < 0.001), strength)
  const { fewest_steps, most_steps } = await report(page)
  if (most_steps > fewest_steps) {
    await page.focus('#steps')
    await page.keyboard.press('Home')
    check('steps act', await reported(page, (r) => r.steps === fewest_steps), `${fewest_steps} of ${most_steps}`)
  } else check('steps are left out where there is one alone', await page.isHidden('#steps'))
  await page.keyboard.press('Escape')
}

async function pauses(page) {
  await page.keyboard.press('Space')
  check('space pauses', await reported(page, (r) => r.state === 'paused'))
  check('it says so', await says(page, /Paused/))
  await page.screenshot({ path: `${pictures}/live_paused.png` })
  await page.click('#pause')
  check('the button goes on', await reported(page, (r) => r.state === 'on'))
}

async function records(page) {
  await page.keyboard.press('r')
  check('R records', await reported(page, (r) => Boolean(r.recording)), (await report(page)).recording)
  const began = await report(page)
  await page.waitForTimeout(100)
  await reported(page, (r) => r.frames > began.frames + 24)
  check('a red dot and the name are shown', (await page.textContent('#tape')).includes(began.recording))
}

async function comesBack(page) {
  const { frames } = await report(page)
  await page.evaluate(() => {
    window.seen.reports.length = 0
    window.seen.socket.close()
    document.querySelector('#cues button').click()
  })
  check('what cannot be sent is not promised', /no connection/.test(await page.textContent('#said')))
  check('it connects again by itself', await reported(page, (r) => r.frames > frames))
  check('and says nothing more of it', await says(page, /^$/))
}

async function screens(page) {
  await page.screenshot({ path: `${pictures}/live_wide.png` })
  await page.setViewportSize(PHONE)
  await page.waitForTimeout(700)
  const size = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight])
  check('a phone shows all on one screen', size[0] <= PHONE.width && size[1] <= PHONE.height, size)
  await page.screenshot({ path: `${pictures}/live_phone.png` })
  await page.setViewportSize(WIDE)
}

// The picture alone: F on the page, and a page at the address with &clean, also after it was loaded again.
async function alone(page) {
  await page.keyboard.press('f')
  await page.waitForFunction(() => document.fullscreenElement?.id === 'shown', null, { timeout: SLOW })
  check('F fills the screen with the picture', true)
  await page.keyboard.press('f')
  await page.waitForFunction(() => !document.fullscreenElement, null, { timeout: SLOW })
  const clean = await page.context().browser().newPage({ viewport: { width: 640, height: 360 } })
  await clean.addInitScript(watch)
  await clean.goto(`${address}&clean`)
  for (const name of ['at its address', 'loaded again']) {
    await clean.waitForFunction(() => document.documentElement.classList.contains('begun'), null, { timeout: SLOW })
    const seen = await clean.evaluate(() => [
      document.body.innerText.trim(),
      ...Object.values(document.getElementById('shown').getBoundingClientRect().toJSON()).slice(0, 4),
    ])
    check(`a clean page ${name} shows the picture alone`, seen.join() === ',0,0,640,360', seen)
    await clean.reload()
  }
  await clean.close()
}

async function stops(page) {
  await page.click('#stop')
  await page.waitForTimeout(300)
  check('one click does not stop it', (await report(page)).state === 'on' && /again/.test(await page.textContent('#stop')))
  await page.click('#stop')
  check('a second one does, and the page says so', await says(page, /has ended/), await page.textContent('#state'))
  await page.screenshot({ path: `${pictures}/live_ended.png` })
}

async function main() {
  const browser = await chromium.launch({ executablePath: BROWSER, args: FLAGS })
  const page = await browser.newPage({ viewport: WIDE })
  const errors = []
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()))
  page.on('pageerror', (error) => errors.push(error.stack))
  await page.addInitScript(watch)
  await page.goto(address)
  await begins(page)
  await numbersMove(page)
  const { cues } = await report(page)
  check('the cues are there', (await page.locator('#cues button').count()) === cues.length && cues.length > 0, cues.length)
  await prompted(page, 'a blue triangle moves right on a black background', 'a prompt', async () => {
    await page.keyboard.press('/')
    await page.fill('#prompt', 'a blue triangle moves right on a black background')
    await page.keyboard.press('Enter')
  })
  await prompted(page, cues[0], 'a cue, by its key,', () => page.keyboard.press('1'))
  await keepsWords(page, 'a red circle moves right on a white background')
  await controls(page)
  await pauses(page)
  await records(page)
  await screens(page)
  await alone(page)
  await comesBack(page)
  await stops(page)
  check('no error in the console', !errors.length, errors.join('; '))
  await browser.close()
  process.exitCode = failed ? 1 : 0
}

main().catch((error) => {
  console.log(`FAIL ${error.stack}`)
  process.exit(1)
})
