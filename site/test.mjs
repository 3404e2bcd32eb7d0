// Looks at the built site in a headless Chromium, as a reader would: every link and anchor, the width of a phone, contrast,
// and whether the search finds each line of the console.
import assert from 'node:assert/strict'
import fs from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { createRequire } from 'node:module'
import { chromium } from 'playwright-core'

const site = path.dirname(fileURLToPath(import.meta.url))
const root = path.join(site, '../dist/site')
const { console: consoleLines } = JSON.parse(fs.readFileSync(path.join(site, 'content/pages.json'), 'utf8'))
const axe = fs.readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

const types = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.png': 'image/png', '.json': 'application/json', '.woff2': 'font/woff2' }
const server = http.createServer((request, response) => {
  const asked = decodeURIComponent(new URL(request.url, 'http://localhost').pathname)
  const file = path.join(root, asked.endsWith('/') ? asked + 'index.html' : asked)
  if (!file.startsWith(root) || !fs.existsSync(file) || fs.statSync(file).isDirectory()) {
    response.writeHead(404).end()
    return
  }
  response.writeHead(200, { 'content-type': types[path.extname(file)] ?? 'application/octet-stream' })
  fs.createReadStream(file).pipe(response)
})
await new Promise((ready) => server.listen(0, '127.0.0.1', ready))
const base = `http://127.0.0.1:${server.address().port}`

const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
})
const pages = fs.readdirSync(root, { recursive: true }).filter((f) => f.endsWith('.html') && f !== '404.html')
let passed = 0
const failures = []
async function check(about, test) {
  try {
    await test()
    passed++
  } catch (error) {
    failures.push(`${about}: ${error.message}`)
    console.log(`FAILED: ${about}: ${error.message}`)
  }
}

// What each page links to, and the anchors that it has.
const anchors = new Map()
const links = []
const reader = await browser.newContext({ viewport: { width: 360, height: 740 } })
for (const name of pages) {
  const page = await reader.newPage()
  const answer = await page.goto(`${base}/${name}`, { waitUntil: 'networkidle' })
  assert.equal(answer.status(), 200)
  anchors.set(`/${name}`, new Set(await page.$$eval('[id]', (all) => all.map((e) => e.id))))
  for (const href of await page.$$eval('.vp-doc a[href], .VPSidebar a[href]', (all) => all.map((a) => a.href))) links.push([name, href])
  await check(`${name} has no horizontal scroll at 360 px`, async () => {
    const wide = await page.evaluate(() => document.documentElement.scrollWidth)
    assert.ok(wide <= 360, `it is ${wide} px wide`)
  })
  await page.close()
}
await check('every link leads somewhere', async () => {
  const broken = []
  for (const [from, href] of links) {
    const url = new URL(href)
    if (url.origin !== base) continue
    const to = url.pathname.endsWith('/') ? url.pathname + 'index.html' : url.pathname
    if (!anchors.has(to)) broken.push(`${from}: ${href}`)
    else if (url.hash && !anchors.get(to).has(decodeURIComponent(url.hash.slice(1)))) broken.push(`${from}: ${href}: no such anchor`)
  }
  assert.deepEqual(broken, [])
  assert.ok(links.length > 100, `only ${links.length} links were found`)
})

for (const colorScheme of ['light', 'dark']) {
  const context = await browser.newContext({ colorScheme, viewport: { width: 1280, height: 900 } })
  for (const name of pages) {
    const page = await context.newPage()
    await page.goto(`${base}/${name}`, { waitUntil: 'networkidle' })
    await page.addScriptTag({ content: axe })
    await check(`${name} can be read in ${colorScheme} colours`, async () => {
      const { violations } = await page.evaluate(() => axe.run('.vp-doc', { runOnly: ['color-contrast', 'image-alt', 'link-name', 'duplicate-id'] }))
      assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => n.target).join(', ')}`), [])
    })
    await page.close()
  }
  await context.close()
}

// The search, by what a person would type: the words of a console line.
const page = await (await browser.newContext()).newPage()
await page.goto(`${base}/`, { waitUntil: 'networkidle' })
await page.click('.VPNavBarSearch button')
await page.waitForSelector('.VPLocalSearchBox input')
for (const line of consoleLines) {
  const words = line.replace(/[`…]/g, ' ').replace(/[^\p{L}\p{N} =-]/gu, ' ').trim()
  await check(`the search finds: ${line}`, async () => {
    await page.fill('.VPLocalSearchBox input', words)
    await page.waitForFunction(
      () => [...document.querySelectorAll('.VPLocalSearchBox .result')].some((r) => r.getAttribute('href')?.includes('console.html#')),
      null, { timeout: 30000 })
  })
}

await browser.close()
server.close()
console.log(`${passed} passed, ${failures.length} failed`)
process.exit(failures.length ? 1 : 0)
