"""The style sheet of the report page."""

CSS = """
body { margin: 0; background: #f5f7fa; color: #1f2933; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { margin: 0 0 4px; font-size: 28px; }
h2 { margin: 0 0 8px; font-size: 19px; }
h3 { margin: 16px 0 4px; font-size: 16px; }
section, header { margin-bottom: 18px; }
section { background: white; border: 1px solid #e4e7eb; border-radius: 8px; padding: 16px 20px; }
.lead { margin: 0; color: #52606d; }
.verdict { border-left: 6px solid #1f7a53; font-size: 17px; }
.verdict.bad { border-left-color: #c1121f; }
.verdict p { margin: 4px 0; }
.note { margin: 0 0 8px; color: #52606d; font-size: 14px; }
table { border-collapse: collapse; width: 100%; font-size: 15px; }
th, td { padding: 5px 10px; text-align: left; vertical-align: top; }
tbody tr { border-top: 1px solid #eef1f4; }
.figures th:not(:first-child), .figures td { text-align: right; }
.figures tbody th { font-weight: normal; color: #52606d; }
.latencies td { white-space: nowrap; }
.latencies tbody th { min-width: 170px; }
.sources { font-size: 13px; }
.sources td:nth-child(3) { white-space: nowrap; }
.tag { border-radius: 4px; padding: 1px 6px; font-size: 12px; color: white; background: #7b8794; }
.tag.measured { background: #1f7a53; }
.tag.fitted { background: #2a9d8f; }
.tag.transferred { background: #4f9bd0; }
.tag.datasheet { background: #1b6ca8; }
.tag.assumed { background: #b7791f; }
.wide { overflow-x: auto; }
small { font-weight: normal; color: #52606d; }
pre { overflow-x: auto; font-size: 13px; background: #f5f7fa; padding: 10px; border-radius: 6px; }
details summary { cursor: pointer; color: #1b6ca8; }
ul { margin: 4px 0 10px; padding-left: 20px; font-size: 14px; }
@media print { body { background: white; } section { break-inside: avoid; border: none; } }
"""
"""Plain CSS without anything fetched from elsewhere."""
