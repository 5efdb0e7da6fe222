"""How the page looks: system letters, few colours, light and dark, on paper and on a phone."""

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--card:#f6f7f9;--ink:#1c2126;--ink-2:#5a6470;--line:#dfe3e8;
--blue:#2f6fbd;--orange:#c9700a;--good:#1a7f45;--good-bg:#e9f6ee;--care:#9a6200;--care-bg:#fdf4e0;
--bad:#bd2c2c;--bad-bg:#fcecec;--bar:#d5e3f4;--bar-good:#cdebd7;--bar-bad:#f7d3d3}
@media screen and (prefers-color-scheme:dark){:root{--paper:#15181c;--card:#1e2227;--ink:#e7eaed;--ink-2:#a0a9b3;
--line:#343a42;--blue:#6ea8e8;--orange:#e6a04c;--good:#5cc98a;--good-bg:#16291e;--care:#e2b04a;--care-bg:#2d2513;
--bad:#f08080;--bad-bg:#331b1c;--bar:#2a415c;--bar-good:#214431;--bar-bad:#58292b}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",sans-serif;margin:0 auto;
max-width:62rem;padding:2rem 1.25rem 4rem;color:var(--ink);background:var(--paper);overflow-wrap:break-word;
font-variant-numeric:tabular-nums;-webkit-text-size-adjust:100%}
header h1{font-size:1.5rem;line-height:1.2;margin:0}
header p{margin:.2rem 0 1.2rem;color:var(--ink-2);font-size:.9rem}
h2{font-size:1.2rem;line-height:1.3;margin:0 0 .3rem}h3{font-size:1rem;margin:1.4rem 0 .4rem}
section{margin-top:2.4rem;padding-top:1.2rem;border-top:1px solid var(--line)}
.lead{margin:0 0 1rem;max-width:46rem}.aside{color:var(--ink-2);font-size:.9rem;max-width:46rem;margin:.6rem 0}
a{color:var(--blue);text-decoration:none}a:hover{text-decoration:underline}
.verdict{display:grid;grid-template-columns:auto 1fr;gap:.2rem 1.1rem;padding:1.2rem 1.3rem;border-radius:.6rem;
border:2px solid}
.verdict svg{width:3.4rem;height:3.4rem;grid-row:1/3}
.verdict .word{font-size:1.55rem;line-height:1.2;font-weight:700}
.verdict .sentence{font-size:1.12rem;color:var(--ink);margin:0}
.verdict ul{grid-column:1/-1;margin:.8rem 0 0;padding:0 0 0 1.2rem;color:var(--ink)}
.verdict li{margin:.35rem 0}.verdict details{grid-column:1/-1;color:var(--ink)}
.good{color:var(--good);background:var(--good-bg)}.care{color:var(--care);background:var(--care-bg)}
.bad{color:var(--bad);background:var(--bad-bg)}.verdict{border-color:currentColor}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:.8rem;margin:1rem 0 0;padding:0;list-style:none}
.tiles li{background:var(--card);border-radius:.6rem;padding:.8rem 1rem}
.tiles b{display:block;font-size:1.65rem;line-height:1.2;font-weight:650;white-space:nowrap}
.tiles li>span{display:block;font-size:.88rem;line-height:1.35;color:var(--ink-2)}.tiles li>.what{color:var(--ink)}
.notes{margin:1rem 0 0;padding:.7rem 1rem;border-radius:.6rem;background:var(--card);font-size:.92rem}
.notes ul{margin:.2rem 0 0;padding-left:1.2rem}.notes li{margin:.2rem 0}
.doubted b{text-decoration:line-through;color:var(--ink-2)}.whole{white-space:nowrap}
.gates{list-style:none;margin:1rem 0 0;padding:0}.gates li{padding:.4rem .8rem;margin:.3rem 0;
border-left:.25rem solid currentColor;border-radius:.2rem}.gates li>*{color:var(--ink)}
.gates li b{color:inherit;margin-right:.3rem}
nav{margin-top:1.2rem}nav a{display:inline-block;margin:.25rem 1.2rem .25rem 0;font-size:.92rem}
.wide{overflow-x:auto;margin:.6rem 0;background:linear-gradient(to right,var(--paper) 30%,transparent),
linear-gradient(to left,var(--paper) 30%,transparent) right,linear-gradient(to right,var(--line),transparent),
linear-gradient(to left,var(--line),transparent) right;background-repeat:no-repeat;
background-size:2rem 100%,2rem 100%,.8rem 100%,.8rem 100%;background-attachment:local,local,scroll,scroll}
table{border-collapse:collapse;font-size:.92rem}
th,td{padding:.32rem .8rem;text-align:right;border-bottom:1px solid var(--line)}td{white-space:nowrap}
th{font-weight:600;color:var(--ink-2);vertical-align:bottom}
th:first-child,td:first-child{text-align:left;padding-left:0}td.words,th.words{text-align:left;white-space:normal}
td small{color:var(--ink-2)}td.hit{background:var(--bar-good)}td.miss{background:var(--bar-bad)}
.matrix td+td,.matrix th+th{text-align:center;min-width:4rem}
details{margin:.6rem 0}summary{cursor:pointer;color:var(--blue);font-size:.92rem}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.2rem,1fr));gap:.9rem .8rem;margin:.6rem 0}
figure{margin:0;font-size:.8rem;line-height:1.35;min-width:0}figure img{display:block;border-radius:.3rem;
margin-bottom:.3rem;background:var(--card)}
.answer{position:relative;display:flex;justify-content:space-between;gap:.4rem;padding:.08rem .35rem;margin:.1rem 0;
border-radius:.2rem;background:var(--card);overflow:hidden}
.answer i{position:absolute;inset:0 auto 0 0;background:var(--bar)}.answer.right i{background:var(--bar-good)}
.answer.wrong i{background:var(--bar-bad)}.answer>span,.answer>b{position:relative;font-weight:500}
.answer .name{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.truth{color:var(--bad);font-weight:600}.note{color:var(--ink-2);overflow-wrap:anywhere}
.plot{display:flex;flex-wrap:wrap;gap:.6rem 1.2rem;overflow-x:auto;margin:.6rem 0}
.plot svg{max-width:100%;height:auto;display:block}
.plot img{max-width:100%;height:auto;background:#fff;border-radius:.3rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1.2rem;font-size:.92rem;margin:.6rem 0}
dt{color:var(--ink-2)}dd{margin:0;overflow-wrap:anywhere}code{font-size:.92em;overflow-wrap:anywhere}
@media(max-width:40rem){body{padding:1.2rem .9rem 3rem}.tiles{grid-template-columns:1fr 1fr}.tiles b{font-size:1.4rem}
.verdict{padding:1rem}.verdict svg{width:2.6rem;height:2.6rem}.verdict .word{font-size:1.3rem;align-self:center}
.verdict svg{grid-row:1}.verdict .sentence{grid-column:1/-1}th,td{padding:.32rem .55rem}
td:first-child{white-space:normal;min-width:6.5rem}
.gallery{grid-template-columns:repeat(auto-fill,minmax(6.6rem,1fr))}dl{grid-template-columns:1fr;gap:0}
dd{margin-bottom:.5rem}}
@media print{body{max-width:none;padding:0;font-size:10.5pt}section,figure,table,.plot{break-inside:avoid}
section:has(table,.gallery){break-inside:auto}tr,h2{break-inside:avoid;break-after:avoid}tr{break-after:auto}nav{display:none}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}.wide,.plot{overflow:visible}}
"""
