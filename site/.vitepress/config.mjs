import { slug } from '../prepare.mjs'
import pages from '../content/pages.json' with { type: 'json' }

// The pages are made by prepare.mjs from the Markdown of the project, which stays readable by itself.
export default {
  title: 'nametag',
  description: "When a node's first service starts, its name is final.",
  srcDir: 'content',
  outDir: '../dist/site',
  cleanUrls: false, // so that it works from any web server, and from a folder
  lastUpdated: false,
  // Links and anchors are those of the Markdown on GitHub.
  markdown: { anchor: { slugify: slug }, toc: { slugify: slug }, theme: { light: 'github-light-high-contrast', dark: 'github-dark-high-contrast' }, languageAlias: { ipxe: 'sh' } },
  themeConfig: {
    search: { provider: 'local', options: { detailedView: true } },
    outline: [2, 3],
    nav: [{ text: 'Install', link: '/docs/install' }, { text: 'Console lines', link: '/console' }],
    sidebar: pages.sidebar,
    socialLinks: [{ icon: 'github', link: 'https://github.com/nametag-boot/nametag' }],
  },
}
