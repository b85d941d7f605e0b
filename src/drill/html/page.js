
'use strict';
// One run at a time, chosen from a list.
const runs = Array.from(document.querySelectorAll('details.run'));
if (runs.length > 1) {
  const label = document.createElement('label');
  label.className = 'pick';
  label.append('Run: ');
  const list = document.createElement('select');
  for (const run of runs) {
    list.append(new Option(run.querySelector('summary').textContent));
  }
  const show = () => runs.forEach((run, index) => {
    run.hidden = index !== list.selectedIndex;
    run.open = !run.hidden;
  });
  list.selectedIndex = Math.max(0, runs.findIndex((run) => run.open));
  list.addEventListener('change', show);
  label.append(list);
  runs[0].before(label);
  show();
}
// The command to the clipboard; where that is not allowed it is selected, to be copied by hand.
const command = document.getElementById('command');
const copy = document.createElement('button');
copy.type = 'button';
copy.textContent = 'Copy';
copy.addEventListener('click', async () => {
  try {
    await navigator.clipboard.writeText(command.textContent);
    copy.textContent = 'Copied';
  } catch {
    getSelection().selectAllChildren(command);
  }
});
command.after(copy);
