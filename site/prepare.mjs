// Makes content/, the site's pages, from the Markdown of the project and the helps of its commands.
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const site = path.dirname(fileURLToPath(import.meta.url))
const top = path.dirname(site)
const content = path.join(site, 'content')
const repository = 'https://github.com/nametag-boot/nametag'

// slug is the anchor of a heading as GitHub makes it.
export const slug = (heading) =>
  heading.toLowerCase().replace(/[^\p{L}\p{N} _-]/gu, '').replaceAll(' ', '-')

// source → page, both relative; what is not there (yet) is left out.
function places() {
  const all = new Map([['README.md', 'index.md']])
  for (const name of ['ARCHITECTURE.md', 'CONTRIBUTING.md', 'SECURITY.md', 'CHANGELOG.md']) {
    if (fs.existsSync(path.join(top, name))) all.set(name, name.toLowerCase())
  }
  for (const name of fs.readdirSync(path.join(top, 'docs'), { recursive: true }).sort()) {
    if (name.endsWith('.md')) all.set(path.posix.join('docs', name), path.posix.join('docs', name).replace(/README\.md$/, 'index.md'))
  }
  return all
}

// relink leads the links of a page to other pages, to copied pictures, or to the source on GitHub.
function relink(text, from, to, pages, pictures) {
  return text.replace(/\]\(([^)\s]+)\)/g, (whole, target) => {
    if (/^[a-z]+:/.test(target) || target.startsWith('#')) return whole
    const [file, anchor] = target.split('#')
    const source = path.posix.join(path.posix.dirname(from), file)
    const hash = anchor ? '#' + anchor : ''
    if (pages.has(source)) return `](${path.posix.relative(path.posix.dirname(to), pages.get(source)) || path.posix.basename(to)}${hash})`
    if (/\.(svg|png)$/.test(source)) {
      pictures.set(source, path.posix.join(path.posix.dirname(to), path.posix.basename(source)))
      return `](./${path.posix.basename(source)})`
    }
    const kind = fs.statSync(path.join(top, source)).isDirectory() ? 'tree' : 'blob'
    return `](${repository}/${kind}/main/${source.replace(/\/$/, '')}${hash})`
  })
}

// code is a text as a block that nothing in it can end.
const code = (text) => '````text\n' + text.trimEnd() + '\n````\n'

// helps are the help texts of a command and of all below it.
function helps(program, parts = []) {
  const text = execFileSync(path.join(top, 'bin', program), [...parts, '--help'], { encoding: 'utf8' })
  const name = [program, ...parts].join(' ')
  let all = [[name, text]]
  const list = text.match(/^(?:Available Commands|Commands):\n((?: +\S.*\n)+)/m)
  for (const line of list ? list[1].split('\n') : []) {
    const command = line.match(/^ {2}([a-z][a-z-]*)/)?.[1]
    if (command && !['help', 'completion', 'version', 'init'].includes(command)) all = all.concat(helps(program, [...parts, command]))
  }
  return all
}

// consoleLines are the rows of the table that says what a line on the console means, each with the anchor that lines end in.
function consoleLines() {
  const text = fs.readFileSync(path.join(top, 'docs/boot.md'), 'utf8')
  const table = text.slice(text.indexOf('| the console says |')).split('\n\n')[0]
  return table.split('\n').slice(2).map((row) => row.slice(1, -1).split(/ \| /).map((cell) => cell.trim())).filter((row) => row.length === 3)
    .map(([line, meaning, remedy]) => {
      const [, id, said] = line.match(/^<a id="([a-z-]+)"><\/a>(.*)$/)
      return { id, said, meaning, remedy }
    })
}

function write(name, text) {
  const file = path.join(content, name)
  fs.mkdirSync(path.dirname(file), { recursive: true })
  fs.writeFileSync(file, text)
}

// title is a page's first heading.
const title = (text) => text.match(/^# (.*)$/m)?.[1].replaceAll('`', '') ?? ''

export function prepare() {
  fs.rmSync(content, { recursive: true, force: true })
  const pages = places()
  const pictures = new Map()
  const titles = new Map()
  for (const [from, to] of pages) {
    const text = fs.readFileSync(path.join(top, from), 'utf8')
    titles.set(to, title(text))
    write(to, relink(text, from, to, pages, pictures))
  }
  for (const [from, to] of pictures) write(to, fs.readFileSync(path.join(top, from)))

  let text = '# From console line to remedy\n\nWhat nametag says on the console, and what to do. Each line has an address of its own.\n'
  for (const { id, said, meaning, remedy } of consoleLines()) text += `\n## ${said} {#${id}}\n\nIt means: ${meaning}.\n\nWhat to do: ${remedy}.\n`
  write('console.md', relink(text, 'docs/boot.md', 'console.md', pages, pictures))

  const commands = []
  for (const program of ['nametag', 'nametagctl']) {
    const all = helps(program)
    write(`commands/${program}.md`, all.map(([name, help], i) => `${i ? '##' : '#'} ${name}\n\n${code(help)}`).join('\n'))
    commands.push({ text: program, link: `/commands/${program}` })
  }

  const item = (to) => ({ text: titles.get(to) || to, link: '/' + to.replace(/(index)?\.md$/, '') })
  const guide = [...pages.values()].filter((to) => to.startsWith('docs/')).map(item)
  const project = [...pages.values()].filter((to) => !to.startsWith('docs/') && to !== 'index.md').map(item)
  const sidebar = [
    { text: 'nametag', items: [{ text: 'What it is', link: '/' }, { text: 'From console line to remedy', link: '/console' }] },
    { text: 'Guide', items: guide },
    { text: 'Commands', items: commands },
    { text: 'Project', items: project },
  ]
  write('pages.json', JSON.stringify({ sidebar, console: consoleLines().map((r) => r.said) }, null, 2))
}

if (process.argv[1] === fileURLToPath(import.meta.url)) prepare()
